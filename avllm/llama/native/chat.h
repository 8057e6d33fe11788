// Chat templates of llama.cpp's common library behind JSON strings.
//
// common/ is C++ without a stable interface: this file is the only one that follows its changes.
#pragma once

#include <string>

struct llama_model;
struct avllm_chat_templates;

extern "C" {

// Parse the model's chat template, or `source` where that is not empty. Throws std::exception.
avllm_chat_templates * avllm_chat_templates_new(const llama_model * model, const std::string & source);
void                   avllm_chat_templates_free(avllm_chat_templates * templates);

// True when the model (or the override) brought a template; otherwise ChatML stands in.
bool avllm_chat_templates_explicit(const avllm_chat_templates * templates);

// Source text of the template in use.
void avllm_chat_templates_source(const avllm_chat_templates * templates, std::string & source);

// Render. `request` is a JSON object: messages (OpenAI form), tools, tool_choice,
// parallel_tool_calls, add_generation_prompt, continue_final_message, enable_thinking and
// chat_template_kwargs. `result` becomes a JSON object: prompt, generation_prompt,
// additional_stops. Thread-safe: templates are only read. Throws std::exception with the
// template's own words when it refuses the messages.
void avllm_chat_render(const avllm_chat_templates * templates, const std::string & request, std::string & result);
}
