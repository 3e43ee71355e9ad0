/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef MELU_H
#define MELU_H
#include <stddef.h>
#include <stdint.h>
#ifdef __cplusplus
extern "C" {
#endif
#if defined(MELU_BUILD) && defined(__GNUC__)
#define MELU_API __attribute__((visibility("default")))
#else
#define MELU_API
#endif
#define MELU_VERSION_MAJOR 1
#define MELU_VERSION_MINOR 0
#define MELU_VERSION_PATCH 0
#define MELU_UNKNOWN ((uint32_t)0xffffffffu)
#define MELU_NONE ((size_t)-1)
typedef enum melu_status { MELU_OK = 0, MELU_EINVAL = -1, MELU_ENOMEM = -2, MELU_EIO = -3, MELU_EFORMAT = -4, MELU_ECORRUPT = -5, MELU_EVERSION = -6, MELU_ESCHEMA = -7, MELU_ERANGE = -8, MELU_ENOTFOUND = -9, MELU_ESTATE = -10, MELU_ELIMIT = -11, MELU_ECANCELED = -12, MELU_EDIVERGED = -13, MELU_ESYSTEM = -14 } melu_status;
struct melu_error { melu_status status; int sys_errno; uint64_t index; uint64_t line; char message[232]; };
typedef struct melu_error melu_error;
MELU_API const char *melu_status_name(melu_status status);
MELU_API const char *melu_version(void);
typedef struct melu_context melu_context;
typedef struct melu_schema melu_schema;
typedef struct melu_dataset melu_dataset;
typedef struct melu_batch melu_batch;
typedef struct melu_model melu_model;
typedef struct melu_gradient melu_gradient;
typedef struct melu_optimizer melu_optimizer;
typedef struct melu_workspace melu_workspace;
typedef struct melu_user melu_user;
typedef struct melu_catalog melu_catalog;
struct melu_allocator { void *arg; void *(*alloc)(void *arg, size_t n_bytes); void (*free)(void *arg, void *memory); };
struct melu_runner { void *arg; size_t n_threads; void (*run)(void *arg, void (*task)(void *task_arg, size_t index, size_t thread), void *task_arg, size_t n_tasks); };
struct melu_progress { const char *phase; uint64_t done, total; uint64_t epoch; uint64_t n_epochs; double loss; double validation; };
typedef int (*melu_progress_fn)(void *arg, const struct melu_progress *progress);
typedef void (*melu_log_fn)(void *arg, const char *line);
struct melu_context_options { size_t size; size_t n_threads; const struct melu_allocator *allocator; const struct melu_runner *runner; melu_log_fn log; void *log_arg; melu_progress_fn progress; void *progress_arg; const char *kernels; size_t max_file_bytes; };
MELU_API melu_status melu_context_new(melu_context **out, const struct melu_context_options *options, melu_error *err);
MELU_API void melu_context_free(melu_context *ctx);
MELU_API const char *melu_build_info(const melu_context *ctx);
typedef enum melu_owner { MELU_USER = 0, MELU_ITEM = 1 } melu_owner;
typedef enum melu_field_kind { MELU_ONE = 0, MELU_MANY = 1, MELU_NUMERIC = 2 } melu_field_kind;
struct melu_field { size_t size; const char *name; melu_owner owner; melu_field_kind kind; size_t n_values; size_t width; double shift; double scale; };
MELU_API melu_status melu_schema_new(melu_schema **out, const melu_context *ctx, melu_error *err);
MELU_API void melu_schema_free(melu_schema *schema);
MELU_API melu_status melu_schema_add(melu_schema *schema, const struct melu_field *field, melu_error *err);
MELU_API size_t melu_schema_n_fields(const melu_schema *schema, melu_owner owner);
MELU_API melu_status melu_schema_field(struct melu_field *field, const melu_schema *schema, melu_owner owner, size_t index, melu_error *err);
MELU_API uint32_t melu_schema_value_id(const melu_schema *schema, const char *field, const char *text);
MELU_API const char *melu_schema_value_text(const melu_schema *schema, const char *field, uint32_t id);
struct melu_value { const uint32_t *ids; size_t n_ids; const float *numbers; size_t n_numbers; };
MELU_API melu_status melu_dataset_new(melu_dataset **out, const melu_context *ctx, const melu_schema *schema, melu_error *err);
MELU_API void melu_dataset_free(melu_dataset *data);
MELU_API melu_status melu_dataset_add_user(melu_dataset *data, uint64_t id, const struct melu_value *values, uint32_t *index, melu_error *err);
MELU_API melu_status melu_dataset_add_item(melu_dataset *data, uint64_t id, const struct melu_value *values, uint32_t *index, melu_error *err);
MELU_API melu_status melu_dataset_add_rating(melu_dataset *data, uint64_t user_id, uint64_t item_id, float rating, melu_error *err);
MELU_API melu_status melu_dataset_freeze(melu_dataset *data, melu_error *err);
MELU_API const melu_schema *melu_dataset_schema(const melu_dataset *data);
MELU_API size_t melu_dataset_n_users(const melu_dataset *data);
MELU_API size_t melu_dataset_n_items(const melu_dataset *data);
MELU_API size_t melu_dataset_n_ratings(const melu_dataset *data);
MELU_API uint64_t melu_dataset_user_id(const melu_dataset *data, uint32_t user);
MELU_API uint64_t melu_dataset_item_id(const melu_dataset *data, uint32_t item);
MELU_API melu_status melu_dataset_find_user(uint32_t *out, const melu_dataset *data, uint64_t id, melu_error *err);
MELU_API melu_status melu_dataset_find_item(uint32_t *out, const melu_dataset *data, uint64_t id, melu_error *err);
MELU_API size_t melu_dataset_ratings(const melu_dataset *data, uint32_t user, const uint32_t **items, const float **ratings);
MELU_API melu_status melu_dataset_user_values(struct melu_value *values, const melu_dataset *data, uint32_t user, melu_error *err);
MELU_API melu_status melu_dataset_item_values(struct melu_value *values, const melu_dataset *data, uint32_t item, melu_error *err);
struct melu_table_options { size_t size; char separator; char list_separator; const char *id; const char *user; const char *item; const char *rating; const char *const *skip; size_t n_skip; };
MELU_API melu_status melu_dataset_read_users(melu_dataset *data, const char *path, const struct melu_table_options *options, melu_error *err);
MELU_API melu_status melu_dataset_read_items(melu_dataset *data, const char *path, const struct melu_table_options *options, melu_error *err);
MELU_API melu_status melu_dataset_read_ratings(melu_dataset *data, const char *path, const struct melu_table_options *options, melu_error *err);
MELU_API melu_status melu_schema_add_melu(melu_schema *schema, const char *folder, melu_error *err);
MELU_API melu_status melu_schema_add_melu_items(melu_schema *schema, const char *folder, melu_error *err);
MELU_API melu_status melu_dataset_read_melu(melu_dataset *data, const char *folder, const char *state, melu_error *err);
MELU_API melu_status melu_batch_new(melu_batch **out, const melu_context *ctx, const melu_dataset *data, melu_error *err);
MELU_API void melu_batch_free(melu_batch *batch);
MELU_API void melu_batch_clear(melu_batch *batch);
MELU_API melu_status melu_batch_add(melu_batch *batch, uint32_t user, const uint32_t *support, size_t n_support, const uint32_t *query, size_t n_query, melu_error *err);
MELU_API size_t melu_batch_n_tasks(const melu_batch *batch);
MELU_API melu_status melu_split_order(uint32_t *order, uint64_t user_id, uint64_t split, size_t n, melu_error *err);
typedef enum melu_network { MELU_LAYERS = 1, MELU_FACTORS = 2 } melu_network;
typedef enum melu_rule { MELU_STEPS = 1, MELU_CLOSED_FORM = 2 } melu_rule;
enum { MELU_ADAPT_HEAD = 1, MELU_ADAPT_HIDDEN = 2, MELU_ADAPT_USER = 4, MELU_ADAPT_ITEMS = 8 };
typedef enum melu_rates { MELU_RATE_FIXED = 1, MELU_RATE_PER_TENSOR = 2, MELU_RATE_PER_ENTRY = 3 } melu_rates;
typedef enum melu_loss { MELU_SQUARED = 1, MELU_ABSOLUTE = 2, MELU_HUBER = 3, MELU_MIXED = 4, MELU_LOGISTIC = 5, MELU_PAIRWISE = 6 } melu_loss;
struct melu_model_options { size_t size; const char *preset; uint64_t seed; const size_t *hidden; size_t n_hidden; size_t inner_steps; double inner_lr; int first_order; double rating_min; double rating_max; melu_network network; size_t rank; melu_rule rule; unsigned adapt; melu_rates rates; melu_loss loss; int multi_step; int history; int learn_precision; };
MELU_API melu_status melu_model_new(melu_model **out, const melu_context *ctx, const melu_schema *schema, const struct melu_model_options *options, melu_error *err);
MELU_API void melu_model_free(melu_model *model);
MELU_API const melu_schema *melu_model_schema(const melu_model *model);
MELU_API melu_status melu_model_get_options(struct melu_model_options *options, const melu_model *model, melu_error *err);
struct melu_param { const char *name; size_t rows, cols; int is_table; };
MELU_API size_t melu_model_n_params(const melu_model *model);
MELU_API melu_status melu_model_param(struct melu_param *out, const melu_model *model, size_t index, melu_error *err);
MELU_API melu_status melu_model_read(float *values, const melu_model *model, const char *name, size_t first_row, size_t n_rows, melu_error *err);
MELU_API melu_status melu_model_write(melu_model *model, const char *name, size_t first_row, size_t n_rows, const float *values, melu_error *err);
MELU_API melu_status melu_model_save(const melu_model *model, const char *path, melu_error *err);
MELU_API melu_status melu_model_load(melu_model **out, const melu_context *ctx, const char *path, melu_error *err);
MELU_API melu_status melu_model_import(melu_model *model, const char *path, melu_error *err);
#define MELU_DIGEST_BYTES 16
MELU_API melu_status melu_model_digest(unsigned char digest[MELU_DIGEST_BYTES], const melu_model *model, melu_error *err);
MELU_API melu_status melu_gradient_new(melu_gradient **out, const melu_model *model, melu_error *err);
MELU_API void melu_gradient_free(melu_gradient *gradient);
MELU_API melu_status melu_meta_gradient(melu_gradient *gradient, const melu_model *model, const melu_batch *batch, melu_error *err);
typedef int (*melu_loss_fn)(void *arg, size_t task, const float *scores, const float *ratings, size_t n, double *loss, float *slopes);
MELU_API melu_status melu_meta_gradient_of(melu_gradient *gradient, const melu_model *model, const melu_batch *batch, melu_loss_fn loss, void *arg, melu_error *err);
MELU_API double melu_gradient_loss(const melu_gradient *gradient, const double **losses);
MELU_API melu_status melu_gradient_read(float *values, const melu_gradient *gradient, const char *name, melu_error *err);
MELU_API size_t melu_gradient_n_rows(const melu_gradient *gradient, const char *name);
MELU_API melu_status melu_gradient_read_rows(uint32_t *rows, float *values, const melu_gradient *gradient, const char *name, melu_error *err);
typedef enum melu_optimizer_kind { MELU_ADAM = 0, MELU_ADAMW = 1, MELU_SGD = 2 } melu_optimizer_kind;
struct melu_optimizer_options { size_t size; melu_optimizer_kind kind; double lr; double beta1, beta2; double epsilon; double weight_decay; double clip_value; double clip_norm; int dense; };
MELU_API melu_status melu_optimizer_new(melu_optimizer **out, const melu_model *model, const struct melu_optimizer_options *options, melu_error *err);
MELU_API void melu_optimizer_free(melu_optimizer *optimizer);
MELU_API melu_status melu_optimizer_step(melu_optimizer *optimizer, melu_model *model, const melu_gradient *gradient, melu_error *err);
MELU_API melu_status melu_optimizer_set_lr(melu_optimizer *optimizer, double lr, melu_error *err);
struct melu_fit_options { size_t size; size_t n_epochs; size_t batch_tasks; size_t n_query; size_t min_ratings; size_t max_ratings; size_t max_support; uint64_t seed; const struct melu_optimizer_options *optimizer; int random_support; int cosine; double prior_vectors; double prior_offsets; double prior_pooled; double prior_dense; double validation; size_t patience; const uint32_t *validation_users; size_t n_validation_users; const char *checkpoint; size_t checkpoint_updates; int resume; };
MELU_API melu_status melu_fit(melu_model *model, const melu_dataset *data, const struct melu_fit_options *options, melu_error *err);
MELU_API melu_status melu_workspace_new(melu_workspace **out, const melu_model *model, size_t max_support, melu_error *err);
MELU_API void melu_workspace_free(melu_workspace *workspace);
MELU_API melu_status melu_user_new(melu_user **out, const melu_model *model, melu_error *err);
MELU_API void melu_user_free(melu_user *user);
MELU_API melu_status melu_adapt(melu_user *user, melu_workspace *workspace, const melu_model *model, const melu_dataset *data, const struct melu_value *profile, const uint32_t *items, const float *ratings, size_t n, melu_error *err);
MELU_API melu_status melu_predict(float *scores, melu_workspace *workspace, const melu_model *model, const melu_user *user, const melu_dataset *data, const uint32_t *items, size_t n, melu_error *err);
MELU_API melu_status melu_predict_variance(float *variances, melu_workspace *workspace, const melu_model *model, const melu_user *user, const melu_dataset *data, const uint32_t *items, size_t n, melu_error *err);
MELU_API size_t melu_user_ratings(const melu_user *user, const uint64_t **items, const float **ratings);
MELU_API melu_status melu_user_rate(melu_user *user, melu_workspace *workspace, const melu_model *model, const melu_dataset *data, uint32_t item, float rating, melu_error *err);
MELU_API melu_status melu_user_forget(melu_user *user, melu_workspace *workspace, const melu_model *model, const melu_dataset *data, uint32_t item, melu_error *err);
typedef enum melu_user_form { MELU_USER_COMPACT = 0, MELU_USER_READY = 1 } melu_user_form;
MELU_API melu_status melu_user_save(unsigned char *bytes, size_t *n, melu_workspace *workspace, const melu_user *user, melu_user_form form, melu_error *err);
MELU_API melu_status melu_user_load(melu_user *user, melu_workspace *workspace, const melu_model *model, const melu_dataset *data, const unsigned char *bytes, size_t n, melu_error *err);
MELU_API melu_status melu_explain(float *pulls, melu_workspace *workspace, const melu_model *model, const melu_user *user, const melu_dataset *data, uint32_t item, melu_error *err);
MELU_API melu_status melu_catalog_new(melu_catalog **out, const melu_model *model, const melu_dataset *data, const uint32_t *items, size_t n, melu_error *err);
MELU_API void melu_catalog_free(melu_catalog *catalog);
MELU_API size_t melu_catalog_n_items(const melu_catalog *catalog);
MELU_API const uint32_t *melu_catalog_items(const melu_catalog *catalog);
MELU_API melu_status melu_catalog_put(melu_catalog *catalog, const melu_dataset *data, const uint32_t *items, const uint32_t *numbers, size_t n, melu_error *err);
MELU_API melu_status melu_catalog_remove(melu_catalog *catalog, const uint32_t *numbers, size_t n, melu_error *err);
MELU_API melu_status melu_catalog_score(float *scores, melu_workspace *workspace, const melu_catalog *catalog, const melu_user *user, melu_error *err);
MELU_API melu_status melu_catalog_score_list(float *scores, melu_workspace *workspace, const melu_catalog *catalog, const melu_user *user, const uint32_t *numbers, size_t n, melu_error *err);
struct melu_top_options { size_t size; const uint32_t *exclude; size_t n_exclude; int (*keep)(void *arg, uint32_t item); void *keep_arg; const uint64_t *allow; size_t n_allow; };
MELU_API melu_status melu_catalog_top(uint32_t *items, float *scores, size_t *n, melu_workspace *workspace, const melu_catalog *catalog, const melu_user *user, const struct melu_top_options *options, melu_error *err);
MELU_API melu_status melu_catalog_top_users(uint32_t *items, float *scores, size_t *n, size_t k, melu_workspace *workspace, const melu_catalog *catalog, const melu_user *const *users, size_t n_users, const struct melu_top_options *options, melu_error *err);
typedef enum melu_candidate_rule { MELU_EXPECTED_ERROR = 1, MELU_GRADIENT_NORM = 2 } melu_candidate_rule;
struct melu_candidate_options { size_t size; melu_candidate_rule rule; const uint32_t *users; size_t n_users; const uint32_t *items; size_t n_items; size_t max_items; size_t n_splits; };
MELU_API melu_status melu_candidates(uint32_t *items, double *scores, size_t *n, const melu_model *model, const melu_dataset *data, const struct melu_candidate_options *options, melu_error *err);
struct melu_ask_options { size_t size; const uint32_t *items; size_t n_items; const float *chances; const uint32_t *targets; size_t n_targets; };
MELU_API melu_status melu_ask(uint32_t *items, float *gains, size_t *n, melu_workspace *workspace, const melu_model *model, const melu_user *user, const melu_dataset *data, const struct melu_ask_options *options, melu_error *err);
struct melu_metrics { size_t n_users, n_queries; double mae; double mse; double rmse; double rmse_pooled; double rmse_user; double ndcg_paper[4]; double ndcg_linear[4]; double log_loss; double auc; double coverage; };
MELU_API melu_status melu_metrics_add(struct melu_metrics *metrics, const float *scores, const float *ratings, size_t n, double rating_min, double rating_max, melu_error *err);
MELU_API melu_status melu_metrics_clicks(struct melu_metrics *metrics, const melu_context *ctx, const float *scores, const float *labels, size_t n, melu_error *err);
struct melu_evaluate_options { size_t size; const uint32_t *users; size_t n_users; uint64_t split; size_t n_query; size_t min_ratings; size_t max_ratings; size_t max_support; const melu_dataset *history; int intervals; size_t max_history; };
MELU_API melu_status melu_evaluate(struct melu_metrics *out, const melu_model *model, const melu_dataset *data, const struct melu_evaluate_options *options, melu_error *err);
struct melu_choose_options { size_t size; double validation; uint64_t seed; const struct melu_evaluate_options *evaluate; };
MELU_API melu_status melu_choose(size_t *best, double *errors, const melu_context *ctx, const melu_dataset *data, const struct melu_model_options *models, const struct melu_fit_options *fits, size_t n, const struct melu_choose_options *options, melu_error *err);
#ifdef __cplusplus
}
#endif
#endif
