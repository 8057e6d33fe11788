#include "log.h"

#include <atomic>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>

#include "ggml.h"
#include "llama.h"
#include "common/log.h"

namespace {

constexpr size_t MAX_LINES = 4096;  // a broken model can log without end

std::mutex                  mutex;
std::deque<avllm_log_line>  lines;
std::string                 partial;        // text of a line that came in pieces
int                         partial_level = GGML_LOG_LEVEL_INFO;
uint64_t                    dropped       = 0;
std::atomic<bool>           pending{ false };

void finish_line() {
    if (lines.size() == MAX_LINES) {
        lines.pop_front();
        dropped++;
    }
    lines.push_back({ partial_level, avllm_log_thread(), std::move(partial) });
    partial.clear();
    pending.store(true, std::memory_order_release);
}

void on_log(ggml_log_level level, const char * text, void * /*user_data*/) {
    std::lock_guard<std::mutex> lock(mutex);
    if (level != GGML_LOG_LEVEL_CONT) {
        if (!partial.empty()) {
            finish_line();
        }
        partial_level = level;
    }
    for (const char * c = text; *c; c++) {
        if (*c == '\n') {
            finish_line();
        } else {
            partial += *c;
        }
    }
}

}  // namespace

extern "C" {

uint64_t avllm_log_thread() {
    return std::hash<std::thread::id>{}(std::this_thread::get_id());
}

void avllm_log_install() {
    llama_log_set(on_log, nullptr);
    // common/ has a logger of its own with a thread that writes to stderr.
    common_log_set_verbosity_thold(-1);
    common_log_pause(common_log_main());
}

bool avllm_log_pending() {
    return pending.load(std::memory_order_acquire);
}

uint64_t avllm_log_drain(std::vector<avllm_log_line> & out) {
    std::lock_guard<std::mutex> lock(mutex);
    out.assign(std::make_move_iterator(lines.begin()), std::make_move_iterator(lines.end()));
    lines.clear();
    pending.store(false, std::memory_order_release);
    const uint64_t count = dropped;
    dropped              = 0;
    return count;
}
}
