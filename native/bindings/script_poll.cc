// See script_poll.h. libuv's handle outlives this object: it is closed when the environment ends, which Node waits for.
#include "bindings/script_poll.h"

#include <sys/epoll.h>

#include <cerrno>

#include "core/failure.h"

namespace vivarium {

struct ScriptPoll::Handle {
  const Libuv& uv;
  ScriptPoll* poll;
  std::unique_ptr<std::max_align_t[]> bytes;  // libuv's
  napi_async_cleanup_hook_handle hook = nullptr;
};

std::unique_ptr<ScriptPoll> ScriptPoll::make(napi_env env, std::function<void()> before, std::function<void()> after) {
  const Libuv* uv = Libuv::find();
  uv_loop_s* loop = nullptr;
  if (uv == nullptr || napi_get_uv_event_loop(env, &loop) != napi_ok) return nullptr;
  return std::unique_ptr<ScriptPoll>(new ScriptPoll(env, *uv, loop, std::move(before), std::move(after)));
}

ScriptPoll::ScriptPoll(napi_env env, const Libuv& uv, uv_loop_s* loop, std::function<void()> before,
                       std::function<void()> after)
    : env_(env), uv_(uv), loop_(loop), before_(std::move(before)), after_(std::move(after)) {}

void ScriptPoll::open() {
  Fd epoll(::epoll_create1(EPOLL_CLOEXEC));
  if (!epoll.valid()) throwSyscall("epoll_create1", errno);
  const size_t units = (uv_.pollBytes + sizeof(std::max_align_t) - 1) / sizeof(std::max_align_t);
  auto handle = std::make_unique<Handle>(Handle{uv_, this, std::make_unique<std::max_align_t[]>(units)});
  void* bytes = handle->bytes.get();
  if (const int error = uv_.pollInit(loop_, bytes, epoll.get())) throwSyscall("uv_poll_init", -error);
  // From here on libuv has it, and only its end gives it back.
  Handle* owned = handle.release();
  uv_.setData(bytes, owned);
  epoll_ = std::move(epoll);
  napi_add_async_cleanup_hook(env_, environmentEnds, owned, nullptr);
  uv_.unref(bytes);
  if (const int error = uv_.pollStart(bytes, Libuv::kReadable, ready)) throwSyscall("uv_poll_start", -error);
}

FdWatcher::Key ScriptPoll::addSignal(int fd, Handler handler) {
  if (stopped_) return 0;
  if (!epoll_.valid()) open();
  epoll_event event{};
  // The edge tells; that the counter stays above zero does not tell again.
  event.events = EPOLLIN | EPOLLET;
  event.data.u64 = lastKey_ + 1;
  if (::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event) < 0) throwSyscall("epoll_ctl", errno, "signal");
  entries_.emplace(++lastKey_, std::pair{fd, std::make_shared<const Handler>(std::move(handler))});
  return lastKey_;
}

void ScriptPoll::remove(Key key) {
  const auto found = entries_.find(key);
  if (found == entries_.end()) return;
  ::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, found->second.first, nullptr);
  const auto released = std::move(found->second.second);
  entries_.erase(found);
}

void ScriptPoll::look() {
  if (entries_.empty() || stopped_) return;
  epoll_event events[32];
  const int count = ::epoll_wait(epoll_.get(), events, 32, 0);
  for (int index = 0; index < count; index++) {
    const auto found = entries_.find(events[index].data.u64);
    if (found == entries_.end()) continue;  // removed by a handler before it
    const std::shared_ptr<const Handler> handler = found->second.second;
    (*handler)();
  }
}

void ScriptPoll::ready(void* handle, int, int) {
  ScriptPoll* poll = static_cast<Handle*>(Libuv::find()->getData(handle))->poll;
  if (poll->stopped_) return;
  poll->before_();
  poll->look();
  poll->after_();
}

void ScriptPoll::environmentEnds(napi_async_cleanup_hook_handle hook, void* data) {
  auto* handle = static_cast<Handle*>(data);
  handle->hook = hook;
  handle->uv.close(handle->bytes.get(), closed);
}

void ScriptPoll::closed(void* bytes) {
  auto* handle = static_cast<Handle*>(Libuv::find()->getData(bytes));
  napi_remove_async_cleanup_hook(handle->hook);
  delete handle;
}

}  // namespace vivarium
