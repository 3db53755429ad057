// sizeof() of the KVM structures that cross the border, for a test that holds the codecs of lib/kvm against them.
#pragma once

#include "bindings/napi.h"

namespace vivarium {

Napi::Object structSizes(Napi::Env env);

}  // namespace vivarium
