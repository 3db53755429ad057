// The life of an environment. Its cleanup hook is registered again after the doorbell was made: hooks run last first,
// and the threads must have ended before Node takes the doorbell away.
#include "bindings/environment.h"

#include <algorithm>

namespace vivarium {

Environment::Environment(Napi::Env env)
    : counters(std::make_shared<Counters>()), runtime(std::make_shared<Runtime>(counters)), env_(env) {
  napi_add_env_cleanup_hook(env_, cleanUp, this);
}

Environment& Environment::of(Napi::Env env) {
  return *env.GetInstanceData<Environment>();
}

void Environment::initialize(Napi::Function errorFactory, Napi::Function onDoorbell) {
  Napi::Env env(env_);
  errorFactory_ = Napi::Persistent(errorFactory);
  const napi_status status =
      napi_create_threadsafe_function(env_, onDoorbell, nullptr, Napi::String::New(env, "vivarium doorbell"), 0, 1,
                                      nullptr, nullptr, nullptr, nullptr, &doorbell_);
  if (status != napi_ok) throw Napi::Error::New(env);
  napi_unref_threadsafe_function(env_, doorbell_);
  runtime->ready->onDoorbell(
      [doorbell = doorbell_] { napi_call_threadsafe_function(doorbell, nullptr, napi_tsfn_nonblocking); });
  onDoorbell_ = Napi::Persistent(onDoorbell);
  poll_ = ScriptPoll::make(
      env_, [ready = runtime->ready] { ready->expect(); }, [this] { callScript(); });
  if (poll_ != nullptr) {
    runtime->signalWatcher = poll_.get();
    runtime->ready->onSpin([poll = poll_.get()] { poll->look(); });
  }
  napi_remove_env_cleanup_hook(env_, cleanUp, this);
  napi_add_env_cleanup_hook(env_, cleanUp, this);
}

// The same as the doorbell's call, for signals that the event loop itself has taken.
void Environment::callScript() {
  const Napi::HandleScope scope(env_);
  napi_value global;
  if (napi_get_global(env_, &global) != napi_ok) return;
  // Refused where the environment ends, which is as well.
  if (napi_make_callback(env_, nullptr, global, onDoorbell_.Value(), 0, nullptr, nullptr) != napi_pending_exception)
    return;
  napi_value error;
  if (napi_get_and_clear_last_exception(env_, &error) == napi_ok) napi_fatal_exception(env_, error);
}

void Environment::addMachine(const std::shared_ptr<Machine>& machine) {
  std::erase_if(machines_, [](const std::weak_ptr<Machine>& row) { return row.expired(); });
  machines_.push_back(machine);
}

void Environment::addIoQueue(const std::shared_ptr<IoQueue>& queue) {
  std::erase_if(ioQueues_, [](const std::weak_ptr<IoQueue>& row) { return row.expired(); });
  ioQueues_.push_back(queue);
}

void Environment::addPager(const std::shared_ptr<Pager>& pager) {
  std::erase_if(pagers_, [](const std::weak_ptr<Pager>& row) { return row.expired(); });
  pagers_.push_back(pager);
}

void Environment::addTap(const std::shared_ptr<Tap>& tap) {
  std::erase_if(taps_, [](const std::weak_ptr<Tap>& row) { return row.expired(); });
  taps_.push_back(tap);
}

void Environment::addGroupPool(const std::shared_ptr<GroupPool>& pool) {
  std::erase_if(groupPools_, [](const std::weak_ptr<GroupPool>& row) { return row.expired(); });
  groupPools_.push_back(pool);
}

void Environment::ref() {
  if (references_++ == 0) napi_ref_threadsafe_function(env_, doorbell_);
}

void Environment::unref() {
  if (references_ == 0) throwRange("unref() without a ref()");
  if (--references_ == 0) napi_unref_threadsafe_function(env_, doorbell_);
}

Napi::Error Environment::error(Napi::Env env, const Failure& failure) const {
  if (errorFactory_.IsEmpty()) return Napi::Error::New(env, failure.what());
  const char* kind = "ioctl";
  switch (failure.kind()) {
    case FailureKind::kIoctl: break;
    case FailureKind::kSyscall: kind = "syscall"; break;
    case FailureKind::kClosed: kind = "closed"; break;
    case FailureKind::kState: kind = "state"; break;
    case FailureKind::kCapability: kind = "capability"; break;
  }
  const Napi::Value detail =
      failure.detail().empty() ? env.Undefined() : Napi::String::New(env, failure.detail()).As<Napi::Value>();
  const Napi::Value made = errorFactory_.Call({
      Napi::String::New(env, kind),
      Napi::String::New(env, failure.name()),
      Napi::String::New(env, errnoName(failure.errnoNumber())),
      Napi::Number::New(env, failure.errnoNumber()),
      detail,
  });
  return Napi::Error(env, made);
}

void Environment::cleanUp(void* data) {
  auto* self = static_cast<Environment*>(data);
  self->runtime->ready->onDoorbell(nullptr);
  std::vector<std::shared_ptr<Machine>> machines;
  for (const auto& row : self->machines_) {
    if (auto machine = row.lock()) machines.push_back(std::move(machine));
  }
  for (const auto& machine : machines) machine->beginClose();
  for (const auto& machine : machines) machine->finishClose();
  for (const auto& row : self->ioQueues_) {
    if (const auto queue = row.lock()) queue->close();
  }
  for (const auto& row : self->taps_) {
    if (const auto tap = row.lock()) tap->stop();
  }
  // After all who may wait for a page.
  for (const auto& row : self->pagers_) {
    if (const auto pager = row.lock()) pager->close();
  }
  for (const auto& row : self->groupPools_) {
    if (const auto pool = row.lock()) pool->close();
  }
  self->runtime->signals.stop();
  self->runtime->ready->onSpin(nullptr);
  if (self->poll_ != nullptr) self->poll_->stop();
  self->runtime->events->stop();
}

}  // namespace vivarium
