// See stats_object.h.
#include "bindings/stats_object.h"

#include "bindings/arguments.h"
#include "kvm/stats.h"

namespace vivarium {

Napi::Value statsObject(Napi::Env env, const Fd& statsFd) {
  Napi::Object object = Napi::Object::New(env);
  for (const Stat& stat : readStats(statsFd)) {
    if (stat.values.size() == 1) {
      object.Set(stat.name, Napi::BigInt::New(env, stat.values[0]));
    } else {
      object.Set(stat.name, toBigUint64Array(env, stat.values));
    }
  }
  return object;
}

}  // namespace vivarium
