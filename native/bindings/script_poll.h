// Descriptors whose signals are meant for JavaScript, watched by its own event loop: a doorbell then costs one change
// of threads, where the event thread in between makes it two. One epoll set of ours holds them all and is itself one
// descriptor of libuv's, so that a thread that polls can look at all of them with one call, and so that there is one
// handle whose end must be waited for.
//
//   signal -> epoll set (edge-triggered) -> libuv's loop -> handlers -> `after`, which calls into JavaScript
#pragma once

#include <map>
#include <memory>

#include "bindings/libuv.h"
#include "bindings/napi.h"
#include "core/fd.h"
#include "thread/fd_watcher.h"

namespace vivarium {

class ScriptPoll : public FdWatcher {
 public:
  // Null where libuv or the environment's loop can't be had. `before` and `after` are called around handlers, unless
  // look() was asked for them.
  static std::unique_ptr<ScriptPoll> make(napi_env env, std::function<void()> before, std::function<void()> after);

  // JavaScript thread, like all of it. Throws Failure kSyscall.
  Key addSignal(int fd, Handler handler) override;
  void remove(Key key) override;
  // Calls the handlers of what was signalled, without waiting.
  void look();
  // The environment ends: nothing is watched any more. Idempotent.
  void stop() { stopped_ = true; }

 private:
  struct Handle;

  ScriptPoll(napi_env env, const Libuv& uv, uv_loop_s* loop, std::function<void()> before, std::function<void()> after);
  void open();
  static void ready(void* handle, int status, int events);
  static void environmentEnds(napi_async_cleanup_hook_handle hook, void* handle);
  static void closed(void* handle);

  napi_env env_;
  const Libuv& uv_;
  uv_loop_s* loop_;
  std::function<void()> before_;
  std::function<void()> after_;
  bool stopped_ = false;
  Fd epoll_;
  Key lastKey_ = 0;
  std::map<Key, std::pair<int, std::shared_ptr<const Handler>>> entries_;
};

}  // namespace vivarium
