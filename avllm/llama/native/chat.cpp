#include "chat.h"

#include "common/chat.h"
#include "common/json.h"
#include "llama.h"

struct avllm_chat_templates {
    common_chat_templates_ptr ptr;
};

namespace {

common_chat_templates_inputs read_inputs(const common_json & request) {
    common_chat_templates_inputs inputs;
    inputs.messages = common_chat_msgs_parse_oaicompat(request.at("messages"));
    if (request.contains("tools")) {
        inputs.tools = common_chat_tools_parse_oaicompat(request.at("tools"));
    }
    if (request.contains("tool_choice")) {
        inputs.tool_choice = common_chat_tool_choice_parse_oaicompat(request.at("tool_choice"));
    }
    inputs.parallel_tool_calls    = request.value("parallel_tool_calls", false);
    inputs.add_generation_prompt  = request.value("add_generation_prompt", true);
    inputs.enable_thinking        = request.value("enable_thinking", true);
    inputs.continue_final_message = common_chat_continuation_parse(request.value("continue_final_message", common_json()));
    if (request.contains("chat_template_kwargs")) {
        for (const auto & item : request.at("chat_template_kwargs").items()) {
            inputs.chat_template_kwargs[item.key()] = item.value().dump();
        }
    }
    return inputs;
}

}  // namespace

extern "C" {

avllm_chat_templates * avllm_chat_templates_new(const llama_model * model, const std::string & source) {
    return new avllm_chat_templates{ common_chat_templates_init(model, source) };
}

void avllm_chat_templates_free(avllm_chat_templates * templates) {
    delete templates;
}

bool avllm_chat_templates_explicit(const avllm_chat_templates * templates) {
    return common_chat_templates_was_explicit(templates->ptr.get());
}

void avllm_chat_templates_source(const avllm_chat_templates * templates, std::string & source) {
    source = common_chat_templates_source(templates->ptr.get());
}

void avllm_chat_render(const avllm_chat_templates * templates, const std::string & request, std::string & result) {
    const auto  inputs = read_inputs(common_json::parse(request));
    const auto  params = common_chat_templates_apply(templates->ptr.get(), inputs);
    common_json json   = common_json::object();
    json["prompt"]            = params.prompt;
    json["generation_prompt"] = params.generation_prompt;
    json["additional_stops"]  = params.additional_stops;
    result                    = json.dump();
}
}
