/* family_gpt2.c - see family_gpt2.h. Where a key of config.json may be absent, the default is GPT2Config's own; the
 * five sizes have none here, as a guessed n_head would give wrong activations and no error. */
#include "family_gpt2.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "mem.h"
#include "model.h"
#include "site_order.h"

struct gpt2 {
    uint32_t n_head;
    uint32_t n_inner; /* width of the MLP; null or absent: 4 n_embd */
    enum mlp_activation activation;
    float layer_norm_epsilon;
    bool scale_attn_weights;              /* scores / sqrt(n_embd / n_head) */
    bool scale_attn_by_inverse_layer_idx; /* scores / (layer + 1) */
    bool tie_word_embeddings;             /* the unembedding is wte, whatever lm_head the file may have */
};

static int read_activation(struct gpt2 *g, const struct model_config *c, struct err *e)
{
    const char *name = model_config_text(c, "activation_function");
    int found = name ? mlp_activation_find(name) : -1;
    if (found >= 0)
        g->activation = (enum mlp_activation)found;
    else if (model_config_has(c, "activation_function"))
        return model_config_wrong(c, "activation_function", "gelu_new, gelu or relu", e);
    return 0;
}

static int configure(struct model *m, const struct model_config *c, struct err *e)
{
    struct gpt2 *g = m->own = mem_alloc(1, sizeof *g, "GPT-2 configuration", e);
    if (!g)
        return ERR_MEMORY;
    *g = (struct gpt2){.activation = MLP_GELU_TANH,
                       .layer_norm_epsilon = 1e-5f,
                       .scale_attn_weights = true,
                       .tie_word_embeddings = true};
    const char *positions = model_config_has(c, "n_positions") ? "n_positions" : "n_ctx"; /* its older name */
    if (model_config_size(c, "vocab_size", &m->vocab_size, e) || model_config_size(c, "n_embd", &m->d_model, e) ||
        model_config_size(c, "n_layer", &m->n_layer, e) || model_config_size(c, "n_head", &g->n_head, e) ||
        model_config_size(c, positions, &m->n_positions, e))
        return ERR_INPUT;
    if (m->d_model % g->n_head != 0)
        return err_set(e, ERR_INPUT, "%s: n_embd %" PRIu32 " is not a multiple of n_head %" PRIu32, c->path, m->d_model,
                       g->n_head);
    g->n_inner = m->d_model > UINT32_MAX / 4 ? UINT32_MAX : 4 * m->d_model;
    bool cross_attention = false;
    if (model_config_optional_size(c, "n_inner", &g->n_inner, e) ||
        model_config_number(c, "layer_norm_epsilon", 0, 1, &g->layer_norm_epsilon, e) || read_activation(g, c, e) ||
        model_config_bool(c, "scale_attn_weights", &g->scale_attn_weights, e) ||
        model_config_bool(c, "scale_attn_by_inverse_layer_idx", &g->scale_attn_by_inverse_layer_idx, e) ||
        model_config_bool(c, "tie_word_embeddings", &g->tie_word_embeddings, e) ||
        model_config_bool(c, "add_cross_attention", &cross_attention, e))
        return ERR_INPUT;
    return cross_attention ? model_config_wrong(c, "add_cross_attention", "false", e) : 0;
}

static void identify(const struct model *m, char text[MODEL_TEXT_SIZE])
{
    const struct gpt2 *g = m->own;
    snprintf(text, MODEL_TEXT_SIZE,
             "gpt2 vocab %" PRIu32 " positions %" PRIu32 " d %" PRIu32 " layers %" PRIu32 " heads %" PRIu32
             " inner %" PRIu32 " activation %s epsilon %.9g scaled %d inverse %d centered %d",
             m->vocab_size, m->n_positions, m->d_model, m->n_layer, g->n_head, g->n_inner,
             mlp_activation_name(g->activation), (double)g->layer_norm_epsilon, g->scale_attn_weights,
             g->scale_attn_by_inverse_layer_idx, m->centered);
}

static struct norm layer_norm(const struct model *m)
{
    const struct gpt2 *g = m->own;
    return (struct norm){.epsilon = (double)g->layer_norm_epsilon, .d = m->d_model};
}

static void describe(const struct model *m, uint32_t layer, struct layer *l)
{
    const struct gpt2 *g = m->own;
    size_t d = m->d_model;
    struct attention *a = &l->attention;
    l->attention_norm = l->mlp_norm = layer_norm(m);
    a->n_head = a->n_kv_head = g->n_head;
    a->head_dim = d / g->n_head;
    a->scale = g->scale_attn_weights ? 1.0f / sqrtf((float)a->head_dim) : 1.0f;
    if (g->scale_attn_by_inverse_layer_idx)
        a->scale /= (float)layer + 1.0f;
    a->qkv = (struct linear){.k = d, .n = 3 * d};
    a->out = (struct linear){.k = d, .n = d};
    l->mlp = (struct mlp){.up = {.k = d, .n = g->n_inner}, .down = {.k = g->n_inner, .n = d}};
    l->mlp.activation = g->activation;
}

static size_t embedding_tensors(struct model *m, struct want *wants)
{
    size_t d = m->d_model;
    const struct want all[] = {{"wte.weight", &m->embedding.tokens, m->vocab_size, d, true},
                               {"wpe.weight", &m->embedding.positions, m->n_positions, d, true}};
    memcpy(wants, all, sizeof all);
    return sizeof all / sizeof *all;
}

static size_t layer_tensors(const struct model *m, struct layer *l, struct want *wants)
{
    size_t d = m->d_model, inner = l->mlp.up.n;
    const struct want all[] = {
        {"ln_1.weight", &l->attention_norm.weight, 0, d, false},
        {"ln_1.bias", &l->attention_norm.bias, 0, d, false},
        {"attn.c_attn.weight", &l->attention.qkv.weight, d, 3 * d, false},
        {"attn.c_attn.bias", &l->attention.qkv.bias, 0, 3 * d, false},
        {"attn.c_proj.weight", &l->attention.out.weight, d, d, true},
        {"attn.c_proj.bias", &l->attention.out.bias, 0, d, true},
        {"ln_2.weight", &l->mlp_norm.weight, 0, d, false},
        {"ln_2.bias", &l->mlp_norm.bias, 0, d, false},
        {"mlp.c_fc.weight", &l->mlp.up.weight, d, inner, false},
        {"mlp.c_fc.bias", &l->mlp.up.bias, 0, inner, false},
        {"mlp.c_proj.weight", &l->mlp.down.weight, inner, d, true},
        {"mlp.c_proj.bias", &l->mlp.down.bias, 0, d, true},
    };
    memcpy(wants, all, sizeof all);
    return sizeof all / sizeof *all;
}

/* The unembedding is wte as the file has it: centring wte concerns what is written to the residual stream alone. */
static size_t head_tensors(struct model *m, struct want *wants)
{
    const struct gpt2 *g = m->own;
    size_t d = m->d_model;
    m->head.norm = layer_norm(m);
    const struct want all[] = {
        {"ln_f.weight", &m->head.norm.weight, 0, d, false},
        {"ln_f.bias", &m->head.norm.bias, 0, d, false},
        {g->tie_word_embeddings ? "wte.weight" : "lm_head.weight", &m->head.unembedding, m->vocab_size, d, false},
    };
    memcpy(wants, all, sizeof all);
    if (!g->tie_word_embeddings || m->centered)
        return 3;
    m->head.unembedding = m->embedding.tokens;
    return 2;
}

/* The causal mask, and the score of what it hides. */
static const char *const layer_constants[] = {"attn.bias", "attn.masked_bias", NULL};

const struct family family_gpt2 = {
    .model_type = "gpt2",
    .prefix = "transformer.",
    .layer_prefix = "h.",
    .layer_constants = layer_constants,
    .points = site_hook_points,
    .can_center = true,
    .configure = configure,
    .identify = identify,
    .describe = describe,
    .embedding_tensors = embedding_tensors,
    .layer_tensors = layer_tensors,
    .head_tensors = head_tensors,
    .run = layer_pre_norm,
};
