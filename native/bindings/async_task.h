// A slow call on one of Node's worker threads, as a promise. The work must not touch JavaScript.
#pragma once

#include <functional>

#include "bindings/napi.h"

namespace vivarium {

// `work` runs on a worker thread and may throw what guarded() understands; `result` runs on the JavaScript thread
// after.
Napi::Value runAsync(Napi::Env env, const char* name, std::function<void()> work,
                     std::function<Napi::Value(Napi::Env)> result);

}  // namespace vivarium
