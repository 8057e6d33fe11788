// llama.cpp's and ggml's log lines, kept in memory until Python takes them.
//
// The callback may run on any thread, with or without the GIL, also while the interpreter ends: so
// it never calls Python. Python drains the lines after each call that may have produced some.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

struct avllm_log_line {
    int         level;   // enum ggml_log_level: 1 debug, 2 info, 3 warning, 4 error
    uint64_t    thread;  // opaque id of the thread that logged
    std::string text;    // without the final newline
};

extern "C" {

// Route llama_log_set here and silence the logger of llama.cpp's common library.
void avllm_log_install();

// True when avllm_log_drain would return something. Lock-free, cheap enough for every step.
bool avllm_log_pending();

// Move all complete lines to `lines`, oldest first; how many were dropped for lack of room.
uint64_t avllm_log_drain(std::vector<avllm_log_line> & lines);

// Id of the calling thread as it stands in avllm_log_line::thread.
uint64_t avllm_log_thread();
}
