// One virtual machine's descriptor and its memory slots. Each slot holds its mapping until the slot goes.
// Memory slots may be set on any thread; everything else belongs to the environment's JavaScript thread.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <vector>

#include "core/event_fd.h"
#include "core/fd.h"
#include "core/mapping.h"
#include "kvm/ioctl_table.h"
#include "kvm/stats.h"

namespace vivarium {

class Vm {
 public:
  Vm(const CountersPtr& counters, Fd fd);

  int fd() const { return fd_.get(); }
  int checkExtension(int capability) const;
  void enableCap(uint32_t capability, uint32_t flags, std::span<const uint64_t> args) const;
  int structIoctl(const StructIoctl& row, void* bytes) const;
  int valueIoctl(const ValueIoctl& row, unsigned long argument) const;

  // KVM_SET_USER_MEMORY_REGION. sizeBytes 0 removes the slot. [offset, offset + sizeBytes) lies inside the mapping.
  void setMemorySlot(uint32_t slot, uint32_t flags, uint64_t gpa, std::shared_ptr<Mapping> mapping, uint64_t offset,
                     uint64_t sizeBytes);
  // `sizeBytes` must be the slot's own, since KVM writes as many bits as the slot has pages.
  std::vector<uint64_t> getDirtyLog(uint32_t slot, uint64_t sizeBytes) const;
  void clearDirtyLog(uint32_t slot, uint64_t firstPage, uint32_t pages, std::span<uint64_t> bitmap) const;

  // Rows of struct kvm_irq_routing_entry.
  void setGsiRouting(std::span<const uint8_t> entries) const;
  void irqfd(const EventFd& eventFd, uint32_t gsi, uint32_t flags, const EventFd* resample) const;
  void ioeventfd(const EventFd& eventFd, uint64_t address, uint32_t length, uint32_t flags,
                 std::optional<uint64_t> datamatch) const;
  const Fd& statsFd() const { return statsFd_; }

  // Closes the descriptors and lets the slots' mappings go; waits for a slot that is being set. Idempotent, any thread.
  void close();

 private:
  struct Slot {
    std::shared_ptr<Mapping> mapping;
    uint64_t sizeBytes;
  };

  Fd fd_;
  Fd statsFd_;
  mutable std::mutex slotsMutex_;  // held over the ioctl, so that close() and a slot on another thread take turns
  std::map<uint32_t, Slot> slots_;
  bool closed_ = false;
  Counted counted_;
};

}  // namespace vivarium
