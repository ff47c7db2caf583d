/* fuzz_gpt2.c - any config.json beside the weights of tests/data/gpt2/unscaled; behind a NUL, any
 * model.safetensors.index.json beside the shards of tests/data/gpt2/sharded, with that config. */
#include "fuzz.h"
#include "model_load.h"

static void open_model(void)
{
    struct model m;
    struct err e = {0};
    if (model_open(&m, fuzz_folder(), &(struct model_options){.head = true}, &e)) {
        MUST(e.code && e.message[0]);
        return;
    }
    MUST(m.n_layer == 3 && m.layers[2].mlp.down.weight && m.head.unembedding && m.fingerprint[0]);
    model_close(&m);
}

/* What config.json alone says, whether or not the weights go with it. */
static void describe_model(void)
{
    struct model m;
    struct layer l = {0};
    struct err e = {0};
    char text[MODEL_TEXT_SIZE];
    if (model_describe(&m, fuzz_folder(), &e)) {
        MUST(e.code && e.message[0]);
        return;
    }
    MUST(m.d_model && m.n_layer && m.vocab_size && m.n_positions);
    m.family->describe(&m, m.n_layer - 1, &l);
    m.family->identify(&m, text);
    MUST(l.attention.n_head * l.attention.head_dim == m.d_model && l.mlp.up.n && text[0]);
    model_close(&m);
}

static const char shards[3][36] = {"model-00001-of-00003.safetensors", "model-00002-of-00003.safetensors",
                                   "model-00003-of-00003.safetensors"};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
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
    describe_model();
    open_model();
    return 0;
}
