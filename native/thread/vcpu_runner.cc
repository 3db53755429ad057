// The run loop. What it touches is its own or atomic; the only locks are those of the posted ring and of parking.
#include "thread/vcpu_runner.h"

#include <signal.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "core/clock.h"
#include "core/failure.h"
#include "core/futex.h"
#include "thread/kick.h"
#include "thread/thread_fence.h"

namespace vivarium {
namespace {

constexpr size_t kStackBytes = 256 * 1024;

void setImmediateExit(kvm_run* run, uint8_t value) {
  std::atomic_ref<uint8_t>(run->immediate_exit).store(value, std::memory_order_seq_cst);
}

uint64_t clockNs(clockid_t clock) {
  timespec time{};
  if (::clock_gettime(clock, &time) != 0) return 0;
  return static_cast<uint64_t>(time.tv_sec) * 1'000'000'000u + static_cast<uint64_t>(time.tv_nsec);
}

}  // namespace

VcpuRunner::VcpuRunner(const CountersPtr& counters, std::shared_ptr<ReadyQueue> ready,
                       std::shared_ptr<PostedRing> posted, std::shared_ptr<RunGate> gate,
                       std::shared_ptr<std::atomic<uint64_t>> spinNs, std::unique_ptr<Vcpu> vcpu, std::string name)
    : counters_(counters),
      ready_(std::move(ready)),
      posted_(std::move(posted)),
      gate_(std::move(gate)),
      spinNs_(std::move(spinNs)),
      vcpu_(std::move(vcpu)),
      name_(std::move(name)),
      source_(ready_->newSource()),
      controlMemory_(Mapping::anonymous(counters, 4096)),
      control_(reinterpret_cast<VcpuControl*>(controlMemory_->data())) {}

// Each side writes last the copy that the other side waits for, so that a copy is never behind a newer one.
void VcpuRunner::setStateFromThread(VcpuState state) {
  state_.store(state, std::memory_order_seq_cst);
  std::atomic_ref<int32_t>(control_->state).store(static_cast<int32_t>(state), std::memory_order_release);
}

void VcpuRunner::setStateFromScript(VcpuState state) {
  std::atomic_ref<int32_t>(control_->state).store(static_cast<int32_t>(state), std::memory_order_release);
  state_.store(state, std::memory_order_seq_cst);
}

void VcpuRunner::count(uint64_t& counter) {
  const std::atomic_ref<uint64_t> shared(counter);
  shared.store(shared.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
}

void VcpuRunner::checkReachable() const {
  if (state() == VcpuState::kRunning) {
    throw Failure(FailureKind::kState, "vcpu " + std::to_string(vcpu_->id()), EBUSY, "the vCPU is running");
  }
}

// --- JavaScript's side ---

void VcpuRunner::resume() {
  if (state() == VcpuState::kFailed) {
    throw Failure(FailureKind::kState, "vcpu " + std::to_string(vcpu_->id()), EIO, "KVM_RUN failed");
  }
  if (!started_) {
    setStateFromScript(VcpuState::kRunning);
    try {
      start();
    } catch (...) {
      setStateFromScript(VcpuState::kParked);
      throw;
    }
    started_ = true;
    return;
  }
  {
    const std::lock_guard lock(parkMutex_);
    // The state before the request: once that is gone the thread goes on and sets states itself.
    if (state() == VcpuState::kParked) setStateFromScript(VcpuState::kRunning);
    requests_.fetch_and(~kPark, std::memory_order_seq_cst);
  }
  wake();
}

void VcpuRunner::park() {
  if (!started_) return;
  {
    const std::lock_guard lock(parkMutex_);
    if ((requests_.fetch_or(kPark, std::memory_order_seq_cst) & kPark) != 0) return;
  }
  if (state() == VcpuState::kRunning) interruptRun();
}

void VcpuRunner::kick() {
  if (!started_) return;
  requests_.fetch_or(kKick, std::memory_order_seq_cst);
  interruptRun();
}

void VcpuRunner::complete() {
  if (state() != VcpuState::kExit) {
    throw Failure(FailureKind::kState, "vcpu " + std::to_string(vcpu_->id()), EINVAL, "no exit waits");
  }
  setStateFromScript(VcpuState::kRunning);
  wake();
}

void VcpuRunner::requestStop() {
  if ((requests_.fetch_or(kStop, std::memory_order_seq_cst) & kStop) != 0) return;
  interruptRun();
  wake();
  posted_->wakeWaiters();
}

// immediate_exit first: a signal that comes before the thread has entered KVM_RUN is otherwise lost.
void VcpuRunner::interruptRun() {
  setImmediateExit(vcpu_->run(), 1);
  const std::lock_guard lock(threadMutex_);
  if (alive_.load(std::memory_order_acquire)) sendKick(thread_);
}

void VcpuRunner::wake() {
  if (!sleeping_.load(std::memory_order_seq_cst)) return;
  wakeWord_.fetch_add(1, std::memory_order_seq_cst);
  futexWake(&wakeWord_);
}

uint64_t VcpuRunner::threadCpuNs() const {
  const std::lock_guard lock(threadMutex_);
  if (!alive_.load(std::memory_order_acquire)) return cpuNsAtEnd_;
  clockid_t clock;
  return ::pthread_getcpuclockid(thread_, &clock) == 0 ? clockNs(clock) : 0;
}

void VcpuRunner::start() {
  installKickHandler();
  pthread_attr_t attributes;
  ::pthread_attr_init(&attributes);
  ::pthread_attr_setstacksize(&attributes, kStackBytes);
  auto* self = new std::shared_ptr<VcpuRunner>(shared_from_this());
  int error;
  {
    const BlockSignals blocked;
    const std::lock_guard lock(threadMutex_);
    error = ::pthread_create(
        &thread_, &attributes,
        [](void* argument) -> void* {
          const std::unique_ptr<std::shared_ptr<VcpuRunner>> runner(
              static_cast<std::shared_ptr<VcpuRunner>*>(argument));
          const Counted counted((*runner)->counters_, &Counters::threads);
          (*runner)->loop();
          return nullptr;
        },
        self);
    if (error == 0) alive_.store(true, std::memory_order_release);
  }
  ::pthread_attr_destroy(&attributes);
  if (error != 0) {
    delete self;
    throwSyscall("pthread_create", error, name_);
  }
}

void VcpuRunner::join() {
  if (!alive_.load(std::memory_order_acquire)) return;
  // Not under threadMutex_: a kick must be possible while the thread is on its way out.
  ::pthread_join(thread_, nullptr);
  const std::lock_guard lock(threadMutex_);
  alive_.store(false, std::memory_order_release);
  threadId_.store(0, std::memory_order_release);
}

// --- the thread's side ---

void VcpuRunner::loop() {
  ::pthread_setname_np(::pthread_self(), name_.substr(0, 15).c_str());
  threadId_.store(static_cast<int>(::syscall(SYS_gettid)), std::memory_order_release);
  fenceThread(ThreadDuty::kVcpu);
  unblockKick();
  kvm_run* const run = vcpu_->run();
  const int fd = vcpu_->fd();
  bool unfinished = false;  // the last KVM_RUN gave an exit, which KVM finishes when it is entered again

  for (;;) {
    const uint32_t requests = requests_.load(std::memory_order_acquire);
    if (requests != 0) [[unlikely]] {
      if ((requests & kStop) != 0) break;
      if ((requests & kPark) != 0) {
        if (!unfinished) {
          parkHere();
          continue;
        }
        setImmediateExit(run, 1);
      }
    }

    if (!gate_->enter(inside_)) {
      failHere(ECANCELED);
      break;
    }
    const int result = ::ioctl(fd, KVM_RUN, 0);
    const int error = result < 0 ? errno : 0;
    // Before anything is made of what came out: it may stand on memory that could not be had.
    if (!gate_->leave(inside_)) {
      failHere(ECANCELED);
      break;
    }
    count(control_->exits);
    if (posted_->hasZones() && !posted_->drain(requests_, kStop)) break;

    if (error == 0) {
      count(control_->reasons[std::min<size_t>(run->exit_reason, std::size(control_->reasons) - 1)]);
      unfinished = true;
      bool stopped = false;
      if (answerHere(&stopped)) {
        if (stopped) break;
        count(control_->exitsNative);
      } else if (!serveInScript()) {
        break;
      }
    } else if (error == EINTR || error == EAGAIN) {
      unfinished = false;
      count(control_->exitsNative);
      if (error == EINTR) count(control_->kicks);
      // Cleared before the requests are looked at: one that comes later sets it again.
      setImmediateExit(run, 0);
      requests_.fetch_and(~kKick, std::memory_order_seq_cst);
    } else {
      failHere(error);
      break;
    }
  }
  cpuNsAtEnd_ = clockNs(CLOCK_THREAD_CPUTIME_ID);
}

// One-byte port accesses that need no choice. `*stopped`: the thread was told to end while the posted ring was full.
bool VcpuRunner::answerHere(bool* stopped) {
  kvm_run* const run = vcpu_->run();
  if (run->exit_reason != KVM_EXIT_IO) return false;
  const auto io = run->io;
  if (io.size != 1 || io.count != 1) return false;
  const uint8_t flags = std::atomic_ref<uint8_t>(posted_->flags()[io.port]).load(std::memory_order_acquire);
  if (flags == 0) return false;
  // kvm_run is JavaScript's to write as well: what stands in it is no proof of anything.
  if (io.data_offset >= vcpu_->mapping()->size()) return false;
  uint8_t* const data = reinterpret_cast<uint8_t*>(run) + io.data_offset;
  if (io.direction == KVM_EXIT_IO_IN) {
    if ((flags & kPortQueued) != 0 && posted_->takeQueued(io.port, data)) return true;
    if ((flags & kPortPublished) == 0) return false;
    *data = std::atomic_ref<uint8_t>(posted_->values()[io.port]).load(std::memory_order_acquire);
    return true;
  }
  if ((flags & kPortPosted) != 0) {
    *stopped = !posted_->post(PostedEntry{io.port, *data, 1, 0}, requests_, kStop);
    return true;
  }
  return (flags & kPortIgnored) != 0;
}

// False when the thread was told to end.
bool VcpuRunner::serveInScript() {
  count(control_->exitsScript);
  setStateFromThread(VcpuState::kExit);
  ready_->put(source_);

  const auto served = [this] {
    return state_.load(std::memory_order_seq_cst) != VcpuState::kExit ||
           (requests_.load(std::memory_order_seq_cst) & kStop) != 0;
  };
  const uint64_t spinNs = spinNs_->load(std::memory_order_relaxed);
  if (spinNs > 0 && spin_.worthwhile()) {
    const uint64_t deadlineNs = monotonicNs() + spinNs;
    do {
      for (int look = 0; look < 32; look++) {
        if (served()) {
          spin_.succeeded();
          return (requests_.load(std::memory_order_acquire) & kStop) == 0;
        }
        spinPause();
      }
    } while (monotonicNs() < deadlineNs);
    spin_.failed();
  }
  sleepUntil(served);
  return (requests_.load(std::memory_order_acquire) & kStop) == 0;
}

void VcpuRunner::parkHere() {
  {
    const std::lock_guard lock(parkMutex_);
    if ((requests_.load(std::memory_order_acquire) & kPark) == 0) return;
    setStateFromThread(VcpuState::kParked);
  }
  ready_->put(source_);
  // resume() sets RUNNING together with the end of the request. The state tells, not the request: a new one may have
  // come before this thread wakes, and wants to be acknowledged too.
  sleepUntil([this] {
    return state_.load(std::memory_order_seq_cst) != VcpuState::kParked ||
           (requests_.load(std::memory_order_seq_cst) & kStop) != 0;
  });
}

void VcpuRunner::failHere(int errnoNumber) {
  std::atomic_ref<int32_t>(control_->runErrno).store(errnoNumber, std::memory_order_release);
  setStateFromThread(VcpuState::kFailed);
  ready_->put(source_);
  sleepUntil([this] { return (requests_.load(std::memory_order_seq_cst) & kStop) != 0; });
}

template <typename Ready>
void VcpuRunner::sleepUntil(Ready ready) {
  sleeping_.store(true, std::memory_order_seq_cst);
  for (;;) {
    const uint32_t word = wakeWord_.load(std::memory_order_seq_cst);
    if (ready()) break;
    futexWait(&wakeWord_, word);
  }
  sleeping_.store(false, std::memory_order_relaxed);
}

}  // namespace vivarium
