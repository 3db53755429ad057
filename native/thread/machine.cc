// The end of a machine: stop, join, close descriptors, let memory go. Views are detached by the bindings before.
#include "thread/machine.h"

#include <linux/kvm.h>
#include <unistd.h>

#include <cerrno>

#include "core/failure.h"

namespace vivarium {

Machine::Machine(std::shared_ptr<Runtime> runtime, Fd fd, size_t vcpuMmapBytes)
    : runtime_(std::move(runtime)),
      vcpuMmapBytes_(vcpuMmapBytes),
      vm_(std::make_shared<Vm>(runtime_->counters, std::move(fd))),
      posted_(std::make_shared<PostedRing>(runtime_->counters, runtime_->ready)),
      vcpus_(std::make_shared<VcpuGroup>()) {}

Machine::~Machine() {
  beginClose();
  finishClose();
}

void Machine::checkOpen() const {
  if (closed()) throwClosed("vm");
}

std::shared_ptr<VcpuRunner> Machine::createVcpu(uint32_t id, const std::string& threadName) {
  auto vcpu = std::make_unique<Vcpu>(runtime_->counters, vm_->fd(), id, vcpuMmapBytes_);
  // KVM_CHECK_EXTENSION gives the page of the coalesced ring within the mapping of any vCPU.
  const int coalescedPage = vm_->checkExtension(KVM_CAP_COALESCED_MMIO);
  if (coalescedPage > 0) posted_->attachCoalesced(vcpu->mapping(), static_cast<size_t>(coalescedPage) * 4096);
  tellOfPosted();
  auto runner = std::make_shared<VcpuRunner>(runtime_->counters, runtime_->ready, posted_, vcpus_->gate(),
                                             runtime_->spinNs, std::move(vcpu), threadName);
  vcpus_->add(runner);
  return runner;
}

std::shared_ptr<PitSteering> Machine::openPit() {
  if (pit_ != nullptr) throw Failure(FailureKind::kState, "pit", EBUSY, "it is open already");
  EventLoop& loop = runtime_->events->loop();
  loop.start();
  auto pit = std::make_shared<PitSteering>(runtime_->counters, runtime_->ready, loop, vm_, vcpus_);
  pit->start();
  pit_ = pit;
  return pit;
}

// Writes that were posted a while ago are told to JavaScript by the event thread.
void Machine::tellOfPosted() {
  if (postedTimer_ != 0) return;
  EventLoop& loop = runtime_->events->loop();
  loop.start();
  postedTimer_ = loop.addFd(posted_->timerFd(), [posted = posted_] {
    uint64_t ignored;
    if (::read(posted->timerFd(), &ignored, sizeof ignored) == sizeof ignored) posted->ring();
  });
}

void Machine::zoneRegistered() {
  posted_->zonesInUse();
  runtime_->events->addRing(posted_, [vcpus = vcpus_] { return vcpus->anyActive(); });
}

void Machine::runs() {
  if (posted_->hasZones()) runtime_->events->machineRuns();
}

void Machine::beginClose() {
  if (closed_.exchange(true, std::memory_order_acq_rel)) return;
  vcpus_->requestStop();
}

void Machine::finishClose() {
  const std::lock_guard lock(closeMutex_);
  if (pit_ != nullptr) pit_->close();
  const std::vector<std::shared_ptr<VcpuRunner>> runners = vcpus_->takeAll();
  for (const auto& runner : runners) runner->join();
  for (const auto& runner : runners) {
    runner->source()->retire();
    runner->closeVcpu();
  }
  runtime_->events->loop().remove(postedTimer_);
  posted_->source()->retire();
  vm_->close();
}

}  // namespace vivarium
