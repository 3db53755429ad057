// Arguments in, errors out.
#include "bindings/tap_wrap.h"

#include "bindings/arguments.h"
#include "bindings/environment.h"

namespace vivarium {

Napi::Function TapWrap::define(Napi::Env env) {
  return DefineClass(env, "Tap",
                     {
                         InstanceAccessor<&TapWrap::sourceId>("sourceId"),
                         InstanceMethod<&TapWrap::name>("name"),
                         InstanceMethod<&TapWrap::setHeaderBytes>("setHeaderBytes"),
                         InstanceMethod<&TapWrap::setOffloads>("setOffloads"),
                         InstanceMethod<&TapWrap::interfaceFlags>("interfaceFlags"),
                         InstanceMethod<&TapWrap::mtuBytes>("mtuBytes"),
                         InstanceMethod<&TapWrap::setInterfaceFlags>("setInterfaceFlags"),
                         InstanceMethod<&TapWrap::read>("read"),
                         InstanceMethod<&TapWrap::write>("write"),
                         InstanceMethod<&TapWrap::changed>("changed"),
                         InstanceMethod<&TapWrap::close>("close"),
                     });
}

TapWrap::TapWrap(const Napi::CallbackInfo& info) : Napi::ObjectWrap<TapWrap>(info) {
  guarded(info, [&] {
    const std::string name = stringArgument(info, 0, "name");
    const auto flags = static_cast<uint16_t>(integerArgument(info, 1, "flags", UINT16_MAX));
    Environment& environment = Environment::of(info.Env());
    tap_ = std::make_shared<Tap>(environment.runtime, name, flags);
    environment.addTap(tap_);
  });
}

Tap& TapWrap::tap() const {
  if (tap_ == nullptr) throwClosed("tap");
  return *tap_;
}

Napi::Value TapWrap::sourceId(const Napi::CallbackInfo& info) {
  return guarded(info, [&]() -> Napi::Value { return Napi::Number::New(info.Env(), tap().sourceId()); });
}

Napi::Value TapWrap::name(const Napi::CallbackInfo& info) {
  return guarded(info, [&]() -> Napi::Value { return Napi::String::New(info.Env(), tap().name()); });
}

Napi::Value TapWrap::setHeaderBytes(const Napi::CallbackInfo& info) {
  return guarded(info, [&] {
    tap().setHeaderBytes(static_cast<int>(integerArgument(info, 0, "bytes", INT32_MAX)));
    return info.Env().Undefined();
  });
}

Napi::Value TapWrap::setOffloads(const Napi::CallbackInfo& info) {
  return guarded(info, [&] {
    tap().setOffloads(u32Argument(info, 0, "flags"));
    return info.Env().Undefined();
  });
}

Napi::Value TapWrap::interfaceFlags(const Napi::CallbackInfo& info) {
  return guarded(info, [&]() -> Napi::Value { return Napi::Number::New(info.Env(), tap().interfaceFlags()); });
}

Napi::Value TapWrap::mtuBytes(const Napi::CallbackInfo& info) {
  return guarded(info, [&]() -> Napi::Value { return Napi::Number::New(info.Env(), tap().mtuBytes()); });
}

Napi::Value TapWrap::setInterfaceFlags(const Napi::CallbackInfo& info) {
  return guarded(info, [&] {
    tap().setInterfaceFlags(static_cast<uint32_t>(integerArgument(info, 0, "flags", UINT16_MAX)));
    return info.Env().Undefined();
  });
}

Napi::Value TapWrap::read(const Napi::CallbackInfo& info) {
  return guarded(info, [&]() -> Napi::Value {
    const std::span<uint8_t> slab = bytesArgument(info, 0, "slab");
    const uint64_t maxFrameBytes = integerArgument(info, 1, "maxFrameBytes", INT32_MAX);
    const std::span<uint32_t> lengths = u32ArrayArgument(info, 2, "lengths");
    bool drained = false;
    const size_t count = tap().read(slab, maxFrameBytes, lengths, &drained);
    const auto number = static_cast<double>(count);
    return Napi::Number::New(info.Env(), drained ? -1 - number : number);
  });
}

Napi::Value TapWrap::write(const Napi::CallbackInfo& info) {
  return guarded(info, [&]() -> Napi::Value {
    const std::span<uint8_t> header = bytesArgument(info, 0, "header");
    return Napi::Number::New(info.Env(), tap().write(header, bytesArgument(info, 1, "frame")));
  });
}

Napi::Value TapWrap::changed(const Napi::CallbackInfo& info) {
  return guarded(info, [&]() -> Napi::Value { return Napi::Boolean::New(info.Env(), tap().changed()); });
}

Napi::Value TapWrap::close(const Napi::CallbackInfo& info) {
  tap_.reset();
  return info.Env().Undefined();
}

}  // namespace vivarium
