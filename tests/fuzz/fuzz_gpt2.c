/* fuzz_gpt2.c - any config.json beside the weights of tests/data/gpt2/unscaled; behind a NUL, any
 * model.safetensors.index.json beside the shards of tests/data/gpt2/sharded, with that config. */
#include "fuzz.h"
#include "gpt2_config.h"
#include "gpt2_model.h"

static void open_model(void)
{
    struct gpt2_model m;
    struct err e = {0};
    if (gpt2_model_open(&m, fuzz_folder(), false, &e)) {
        MUST(e.code && e.message[0]);
        return;
    }
    const struct gpt2_config *c = &m.config;
    MUST(c->n_layer == 3 && c->n_embd % c->n_head == 0 && gpt2_activation_name(c->activation) && m.fingerprint[0]);
    gpt2_model_close(&m);
}

static const char shards[3][36] = {"model-00001-of-00003.safetensors", "model-00002-of-00003.safetensors",
                                   "model-00003-of-00003.safetensors"};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct gpt2_config c;
    struct err e = {0};
    char path[128], target[4096];
    const uint8_t *nul = memchr(data, 0, size);
    size_t n_config = nul ? (size_t)(nul - data) : size;
    fuzz_link("config.json", fuzz_file(0, data, n_config));
    snprintf(path, sizeof path, "%s/model.safetensors", fuzz_folder());
    unlink(path);
    if (nul) {
        fuzz_link("model.safetensors.index.json", fuzz_file(1, nul + 1, size - n_config - 1));
        for (size_t i = 0; i < 3; i++) {
            snprintf(target, sizeof target, "%s/gpt2/sharded/%s", TEST_DATA, shards[i]);
            fuzz_link(shards[i], target);
        }
    } else {
        fuzz_link("model.safetensors", TEST_DATA "/gpt2/unscaled/model.safetensors");
    }
    snprintf(path, sizeof path, "%s/config.json", fuzz_folder());
    if (gpt2_config_read(&c, path, &e) == 0)
        MUST(c.n_head && c.n_embd % c.n_head == 0 && c.n_layer && c.vocab_size && c.n_positions && c.n_inner);
    open_model();
    return 0;
}
