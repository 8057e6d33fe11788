# Declarations of llama.h and ggml.h that avllm uses; no code.
#
# The build reads the function names off this file: they are the symbols that the shared library
# keeps for our modules, renamed to avllm_<name>, so that another llama.cpp in the process cannot
# take their place (see avllm/llama/CMakeLists.txt).
from libc.stdint cimport int8_t, int32_t, uint8_t, uint32_t, uint64_t
from libcpp cimport bool


cdef extern from "ggml.h" nogil:
    ctypedef enum ggml_type:
        GGML_TYPE_F32
        GGML_TYPE_F16
        GGML_TYPE_Q8_0

    ctypedef bool (*ggml_abort_callback)(void * data) noexcept

    ctypedef struct ggml_threadpool_params:
        int n_threads
        uint32_t poll

    ctypedef struct ggml_threadpool:
        pass

    ctypedef ggml_threadpool * ggml_threadpool_t

    ggml_threadpool_params ggml_threadpool_params_default(int n_threads)


cdef extern from "ggml-cpu.h" nogil:
    ggml_threadpool * ggml_threadpool_new(ggml_threadpool_params * params) except +
    void ggml_threadpool_free(ggml_threadpool * threadpool)


cdef extern from "ggml-backend.h" nogil:
    ctypedef struct ggml_backend_device:
        pass

    ctypedef ggml_backend_device * ggml_backend_dev_t

    size_t ggml_backend_dev_count()
    ggml_backend_dev_t ggml_backend_dev_get(size_t index)
    const char * ggml_backend_dev_name(ggml_backend_dev_t device)
    const char * ggml_backend_dev_description(ggml_backend_dev_t device)


cdef extern from "llama.h" nogil:
    ctypedef int32_t llama_pos
    ctypedef int32_t llama_token
    ctypedef int32_t llama_seq_id
    ctypedef uint32_t llama_state_seq_flags

    ctypedef struct llama_model:
        pass

    ctypedef struct llama_context:
        pass

    ctypedef struct llama_vocab:
        pass

    ctypedef struct llama_memory_i:
        pass

    ctypedef llama_memory_i * llama_memory_t

    ctypedef enum llama_flash_attn_type:
        LLAMA_FLASH_ATTN_TYPE_AUTO
        LLAMA_FLASH_ATTN_TYPE_DISABLED
        LLAMA_FLASH_ATTN_TYPE_ENABLED

    ctypedef struct llama_batch:
        int32_t n_tokens
        llama_token * token
        float * embd
        llama_pos * pos
        int32_t * n_seq_id
        llama_seq_id ** seq_id
        int8_t * logits

    ctypedef bool (*llama_progress_callback)(float progress, void * user_data) noexcept

    ctypedef struct llama_model_params:
        int32_t n_gpu_layers
        llama_progress_callback progress_callback
        void * progress_callback_user_data
        bool vocab_only
        bool check_tensors

    ctypedef struct llama_context_params:
        uint32_t n_ctx
        uint32_t n_batch
        uint32_t n_ubatch
        uint32_t n_seq_max
        uint32_t n_outputs_max
        int32_t n_threads
        int32_t n_threads_batch
        llama_flash_attn_type flash_attn_type
        ggml_type type_k
        ggml_type type_v
        ggml_abort_callback abort_callback
        void * abort_callback_data
        bool no_perf
        bool swa_full
        bool kv_unified

    void llama_backend_init() except +
    const char * llama_print_system_info() except +

    llama_model_params llama_model_default_params()
    llama_context_params llama_context_default_params()

    llama_model * llama_model_load_from_file(const char * path, llama_model_params params) except +
    void llama_model_free(llama_model * model)
    const llama_vocab * llama_model_get_vocab(const llama_model * model)
    int32_t llama_model_n_ctx_train(const llama_model * model)
    int32_t llama_model_n_embd(const llama_model * model)
    int32_t llama_model_n_layer(const llama_model * model)
    int32_t llama_model_meta_count(const llama_model * model)
    int32_t llama_model_meta_key_by_index(
        const llama_model * model, int32_t i, char * buf, size_t buf_size)
    int32_t llama_model_meta_val_str_by_index(
        const llama_model * model, int32_t i, char * buf, size_t buf_size)
    int32_t llama_model_desc(const llama_model * model, char * buf, size_t buf_size)
    uint64_t llama_model_size(const llama_model * model)
    uint64_t llama_model_n_params(const llama_model * model)
    const char * llama_model_chat_template(const llama_model * model, const char * name)
    bool llama_model_has_decoder(const llama_model * model)
    bool llama_model_is_recurrent(const llama_model * model)
    bool llama_model_is_hybrid(const llama_model * model)

    int32_t llama_vocab_n_tokens(const llama_vocab * vocab)
    llama_token llama_vocab_bos(const llama_vocab * vocab)
    llama_token llama_vocab_eos(const llama_vocab * vocab)
    bool llama_vocab_get_add_bos(const llama_vocab * vocab)
    bool llama_vocab_is_eog(const llama_vocab * vocab, llama_token token)
    bool llama_vocab_is_control(const llama_vocab * vocab, llama_token token)
    int32_t llama_tokenize(
        const llama_vocab * vocab, const char * text, int32_t text_len, llama_token * tokens,
        int32_t n_tokens_max, bool add_special, bool parse_special) except +
    int32_t llama_token_to_piece(
        const llama_vocab * vocab, llama_token token, char * buf, int32_t length, int32_t lstrip,
        bool special) except +

    llama_context * llama_init_from_model(llama_model * model, llama_context_params params) except +
    void llama_free(llama_context * ctx)
    void llama_attach_threadpool(
        llama_context * ctx, ggml_threadpool_t threadpool, ggml_threadpool_t threadpool_batch)
    void llama_detach_threadpool(llama_context * ctx)
    uint32_t llama_n_ctx(const llama_context * ctx)
    uint32_t llama_n_batch(const llama_context * ctx)
    void llama_synchronize(llama_context * ctx) except +
    int32_t llama_decode(llama_context * ctx, llama_batch batch) except +
    float * llama_get_logits_ith(llama_context * ctx, int32_t i) except +

    llama_memory_t llama_get_memory(const llama_context * ctx)
    void llama_memory_clear(llama_memory_t mem, bool data) except +
    bool llama_memory_seq_rm(
        llama_memory_t mem, llama_seq_id seq_id, llama_pos p0, llama_pos p1) except +
    void llama_memory_seq_cp(
        llama_memory_t mem, llama_seq_id src, llama_seq_id dst, llama_pos p0, llama_pos p1) except +
    llama_pos llama_memory_seq_pos_min(llama_memory_t mem, llama_seq_id seq_id) except +
    llama_pos llama_memory_seq_pos_max(llama_memory_t mem, llama_seq_id seq_id) except +

    size_t llama_state_seq_get_size_ext(
        llama_context * ctx, llama_seq_id seq_id, llama_state_seq_flags flags) except +
    size_t llama_state_seq_get_data_ext(
        llama_context * ctx, uint8_t * dst, size_t size, llama_seq_id seq_id,
        llama_state_seq_flags flags) except +
    size_t llama_state_seq_set_data_ext(
        llama_context * ctx, const uint8_t * src, size_t size, llama_seq_id seq_id,
        llama_state_seq_flags flags) except +

    llama_batch llama_batch_init(int32_t n_tokens, int32_t embd, int32_t n_seq_max)
    void llama_batch_free(llama_batch batch)
