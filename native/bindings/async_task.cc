// napi_async_work, kept free of exceptions at its edges: at the end of a Worker JavaScript can no longer be called,
// and then the promise stays as it is.
#include "bindings/async_task.h"

#include <exception>
#include <memory>

#include "bindings/environment.h"

namespace vivarium {
namespace {

struct Task {
  std::function<void()> work;
  std::function<Napi::Value(Napi::Env)> result;
  Napi::Promise::Deferred deferred;
  std::exception_ptr thrown;
  napi_async_work handle = nullptr;
};

Napi::Value errorOf(Napi::Env env, const std::exception_ptr& thrown) {
  try {
    std::rethrow_exception(thrown);
  } catch (const Failure& failure) {
    return Environment::of(env).error(env, failure).Value();
  } catch (const std::exception& failure) {
    return Napi::Error::New(env, failure.what()).Value();
  }
}

void execute(napi_env, void* data) {
  auto* task = static_cast<Task*>(data);
  try {
    task->work();
  } catch (...) {
    task->thrown = std::current_exception();
  }
  task->work = nullptr;  // what it held goes here, not on the JavaScript thread
}

void complete(napi_env rawEnv, napi_status status, void* data) {
  const std::unique_ptr<Task> task(static_cast<Task*>(data));
  const Napi::Env env(rawEnv);
  const Napi::HandleScope scope(env);
  try {
    if (status == napi_ok) {
      if (task->thrown != nullptr) {
        task->deferred.Reject(errorOf(env, task->thrown));
      } else {
        try {
          task->deferred.Resolve(task->result(env));
        } catch (const Napi::Error& error) {
          task->deferred.Reject(error.Value());
        } catch (const std::exception&) {
          // What the result is made of may fail too: a machine's further descriptors, say.
          task->deferred.Reject(errorOf(env, std::current_exception()));
        }
      }
    }
  } catch (const Napi::Error&) {
  }
  napi_delete_async_work(rawEnv, task->handle);
}

}  // namespace

Napi::Value runAsync(Napi::Env env, const char* name, std::function<void()> work,
                     std::function<Napi::Value(Napi::Env)> result) {
  auto task = std::make_unique<Task>(
      Task{std::move(work), std::move(result), Napi::Promise::Deferred::New(env), nullptr, nullptr});
  const Napi::Value promise = task->deferred.Promise();
  if (napi_create_async_work(env, nullptr, Napi::String::New(env, name), execute, complete, task.get(),
                             &task->handle) != napi_ok) {
    throw Napi::Error::New(env);
  }
  if (napi_queue_async_work(env, task->handle) != napi_ok) {
    napi_delete_async_work(env, task->handle);
    throw Napi::Error::New(env);
  }
  task.release();
  return promise;
}

}  // namespace vivarium
