// KVM's statistics as an object: a bigint for each counter, a BigUint64Array for each histogram.
#pragma once

#include "bindings/napi.h"
#include "core/fd.h"

namespace vivarium {

Napi::Value statsObject(Napi::Env env, const Fd& statsFd);

}  // namespace vivarium
