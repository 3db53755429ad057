// See kick.h. The handler does nothing: that a signal was taken is all that matters.
#include "thread/kick.h"

#include <signal.h>

#include <mutex>

namespace vivarium {
namespace {

int kickSignal() {
  return SIGRTMIN + 3;
}

}  // namespace

void installKickHandler() {
  static std::once_flag once;
  std::call_once(once, [] {
    struct sigaction action {};
    action.sa_handler = [](int) {};
    sigemptyset(&action.sa_mask);
    action.sa_flags = 0;
    ::sigaction(kickSignal(), &action, nullptr);
  });
}

void unblockKick() {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, kickSignal());
  ::pthread_sigmask(SIG_UNBLOCK, &signals, nullptr);
}

void sendKick(pthread_t thread) {
  ::pthread_kill(thread, kickSignal());
}

BlockSignals::BlockSignals() {
  sigset_t all;
  sigfillset(&all);
  ::pthread_sigmask(SIG_SETMASK, &all, &before_);
}

BlockSignals::~BlockSignals() {
  ::pthread_sigmask(SIG_SETMASK, &before_, nullptr);
}

}  // namespace vivarium
