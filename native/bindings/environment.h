// Everything that belongs to one environment (the main thread or a Worker): what its machines share, the classes, the
// error factory and the doorbell. Kept as the addon's instance data; ended by a cleanup hook, after which no thread of
// ours is left that could call into it.
#pragma once

#include <memory>
#include <vector>

#include "bindings/napi.h"
#include "bindings/script_poll.h"
#include "core/failure.h"
#include "io/io_queue.h"
#include "memory/pager.h"
#include "net/tap.h"
#include "snapshot/group_pool.h"
#include "thread/machine.h"

namespace vivarium {

class Environment {
 public:
  explicit Environment(Napi::Env env);
  static Environment& of(Napi::Env env);

  // The error factory and the doorbell; once.
  void initialize(Napi::Function errorFactory, Napi::Function onDoorbell);
  bool initialized() const { return doorbell_ != nullptr; }
  void addMachine(const std::shared_ptr<Machine>& machine);
  void addIoQueue(const std::shared_ptr<IoQueue>& queue);
  void addPager(const std::shared_ptr<Pager>& pager);
  void addTap(const std::shared_ptr<Tap>& tap);
  void addGroupPool(const std::shared_ptr<GroupPool>& pool);
  // The doorbell keeps the event loop alive while referenced more often than not.
  void ref();
  void unref();

  Napi::Error error(Napi::Env env, const Failure& failure) const;

  const CountersPtr counters;
  const std::shared_ptr<Runtime> runtime;
  Napi::FunctionReference runtimeClass;
  Napi::FunctionReference vmClass;
  Napi::FunctionReference vcpuClass;
  Napi::FunctionReference pitClass;

 private:
  static void cleanUp(void* self);
  void callScript();

  napi_env env_;
  Napi::FunctionReference errorFactory_;
  Napi::FunctionReference onDoorbell_;
  std::unique_ptr<ScriptPoll> poll_;  // null where there is none; the event thread does it then
  napi_threadsafe_function doorbell_ = nullptr;
  int references_ = 0;
  std::vector<std::weak_ptr<Machine>> machines_;
  std::vector<std::weak_ptr<IoQueue>> ioQueues_;
  std::vector<std::weak_ptr<Pager>> pagers_;
  std::vector<std::weak_ptr<Tap>> taps_;
  std::vector<std::weak_ptr<GroupPool>> groupPools_;
};

// Runs `body` and turns what it throws into JavaScript's errors: every method of the addon goes through here.
template <typename Body>
auto guarded(const Napi::CallbackInfo& info, Body body) -> decltype(body()) {
  try {
    return body();
  } catch (const Napi::Error&) {
    throw;
  } catch (const Failure& failure) {
    throw Environment::of(info.Env()).error(info.Env(), failure);
  } catch (const BadArgument& mistake) {
    if (mistake.kind() == BadArgument::Kind::kType) throw Napi::TypeError::New(info.Env(), mistake.what());
    throw Napi::RangeError::New(info.Env(), mistake.what());
  } catch (const std::exception& failure) {
    throw Napi::Error::New(info.Env(), failure.what());
  }
}

}  // namespace vivarium
