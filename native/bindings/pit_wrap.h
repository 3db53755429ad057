// NativePit of lib/kvm/native-pit.ts. It keeps its VM's object alive, never the other way round.
#pragma once

#include <memory>

#include "bindings/napi.h"
#include "bindings/vm_wrap.h"
#include "thread/pit_steering.h"

namespace vivarium {

class PitWrap : public Napi::ObjectWrap<PitWrap> {
 public:
  static Napi::Function define(Napi::Env env);
  static Napi::Value create(Napi::Env env, std::shared_ptr<VmShared> shared, std::shared_ptr<PitSteering> steering,
                            Napi::Value vm);
  explicit PitWrap(const Napi::CallbackInfo& info);
  ~PitWrap() override;
  // The VM was closed.
  void letGo() { steering_.reset(); }

 private:
  // Throws Failure kClosed.
  PitSteering& steering() const;

  Napi::Value delivered(const Napi::CallbackInfo& info);
  Napi::Value read(const Napi::CallbackInfo& info);
  Napi::Value change(const Napi::CallbackInfo& info);
  Napi::Value takeOutcome(const Napi::CallbackInfo& info);
  Napi::Value watch(const Napi::CallbackInfo& info);
  Napi::Value takeLook(const Napi::CallbackInfo& info);
  Napi::Value takeStir(const Napi::CallbackInfo& info);

  std::shared_ptr<VmShared> shared_;
  std::shared_ptr<PitSteering> steering_;  // null once closed
};

}  // namespace vivarium
