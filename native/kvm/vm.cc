// The ioctls of a VM's descriptor.
#include "kvm/vm.h"

#include <linux/kvm.h>

#include <cerrno>
#include <cstdio>
#include <cstring>

#include "core/failure.h"
#include "kvm/requests.h"

namespace vivarium {
namespace {

std::string hex(uint64_t value) {
  char text[24];
  std::snprintf(text, sizeof text, "0x%llx", static_cast<unsigned long long>(value));
  return text;
}

std::string slotName(uint32_t slot) {
  return "slot " + std::to_string(slot);
}

}  // namespace

Vm::Vm(const CountersPtr& counters, Fd fd)
    : fd_(std::move(fd)), statsFd_(openStats(fd_.get())), counted_(counters, &Counters::vms) {}

int Vm::checkExtension(int capability) const {
  return ioctlChecked(fd_.get(), KVM_CHECK_EXTENSION, static_cast<unsigned long>(capability), "KVM_CHECK_EXTENSION",
                      "capability " + std::to_string(capability));
}

void Vm::enableCap(uint32_t capability, uint32_t flags, std::span<const uint64_t> args) const {
  kvm_enable_cap enable{};
  enable.cap = capability;
  enable.flags = flags;
  static_assert(sizeof enable.args / sizeof enable.args[0] == 4);
  if (args.size() > 4) throwRange("args: at most four arguments");
  for (size_t index = 0; index < args.size(); index++) enable.args[index] = args[index];
  ioctlChecked(fd_.get(), KVM_ENABLE_CAP, &enable, "KVM_ENABLE_CAP", "capability " + std::to_string(capability));
}

int Vm::structIoctl(const StructIoctl& row, void* bytes) const {
  return ioctlChecked(fd_.get(), row.request, bytes, row.name);
}

int Vm::valueIoctl(const ValueIoctl& row, unsigned long argument) const {
  return ioctlChecked(fd_.get(), row.request, argument, row.name);
}

void Vm::setMemorySlot(uint32_t slot, uint32_t flags, uint64_t gpa, std::shared_ptr<Mapping> mapping, uint64_t offset,
                       uint64_t sizeBytes) {
  std::shared_ptr<Mapping> released;  // after the lock: an unmapping may take long
  const std::lock_guard lock(slotsMutex_);
  if (closed_) throwClosed("vm");
  kvm_userspace_memory_region region{};
  region.slot = slot;
  region.flags = flags;
  region.guest_phys_addr = gpa;
  region.memory_size = sizeBytes;
  region.userspace_addr = sizeBytes == 0 ? 0 : reinterpret_cast<uint64_t>(mapping->data()) + offset;
  ioctlChecked(fd_.get(), KVM_SET_USER_MEMORY_REGION, &region, "KVM_SET_USER_MEMORY_REGION",
               slotName(slot) + ", gpa " + hex(gpa) + ", " + std::to_string(sizeBytes) + " bytes");
  if (const auto found = slots_.find(slot); found != slots_.end()) {
    released = std::move(found->second.mapping);
    slots_.erase(found);
  }
  if (sizeBytes != 0) slots_.emplace(slot, Slot{std::move(mapping), sizeBytes});
}

std::vector<uint64_t> Vm::getDirtyLog(uint32_t slot, uint64_t sizeBytes) const {
  const std::lock_guard lock(slotsMutex_);
  if (closed_) throwClosed("vm");
  const auto found = slots_.find(slot);
  if (found == slots_.end()) throwIoctl("KVM_GET_DIRTY_LOG", ENOENT, slotName(slot));
  if (found->second.sizeBytes != sizeBytes) {
    throwRange("sizeBytes: " + slotName(slot) + " has " + std::to_string(found->second.sizeBytes) + " bytes");
  }
  std::vector<uint64_t> bitmap((sizeBytes / 4096 + 63) / 64);
  kvm_dirty_log log{};
  log.slot = slot;
  log.dirty_bitmap = bitmap.data();
  ioctlChecked(fd_.get(), KVM_GET_DIRTY_LOG, &log, "KVM_GET_DIRTY_LOG", slotName(slot));
  return bitmap;
}

void Vm::clearDirtyLog(uint32_t slot, uint64_t firstPage, uint32_t pages, std::span<uint64_t> bitmap) const {
  if (bitmap.size() < (uint64_t{pages} + 63) / 64) throwRange("bitmap: shorter than one bit for each page");
  kvm_clear_dirty_log log{};
  log.slot = slot;
  log.num_pages = pages;
  log.first_page = firstPage;
  log.dirty_bitmap = bitmap.data();
  ioctlChecked(fd_.get(), KVM_CLEAR_DIRTY_LOG, &log, "KVM_CLEAR_DIRTY_LOG", slotName(slot));
}

void Vm::setGsiRouting(std::span<const uint8_t> entries) const {
  static_assert(sizeof(kvm_irq_routing_entry) == 48);
  if (entries.size() % sizeof(kvm_irq_routing_entry) != 0) throwRange("entries: not a whole number of 48-byte rows");
  const size_t count = entries.size() / sizeof(kvm_irq_routing_entry);
  if (count > 4096) throwRange("entries: more than 4096 routes");  // KVM_MAX_IRQ_ROUTES
  std::vector<uint64_t> words(1 + entries.size() / sizeof(uint64_t));
  words[0] = count;  // struct kvm_irq_routing: u32 nr, u32 flags, entries
  if (!entries.empty()) std::memcpy(words.data() + 1, entries.data(), entries.size());
  ioctlChecked(fd_.get(), request::kSetGsiRouting, words.data(), "KVM_SET_GSI_ROUTING",
               std::to_string(count) + " routes");
}

void Vm::irqfd(const EventFd& eventFd, uint32_t gsi, uint32_t flags, const EventFd* resample) const {
  kvm_irqfd irqfd{};
  irqfd.fd = static_cast<uint32_t>(eventFd.fd());
  irqfd.gsi = gsi;
  irqfd.flags = flags & ~static_cast<uint32_t>(KVM_IRQFD_FLAG_RESAMPLE);
  if (resample != nullptr) {
    irqfd.flags |= KVM_IRQFD_FLAG_RESAMPLE;
    irqfd.resamplefd = static_cast<uint32_t>(resample->fd());
  }
  ioctlChecked(fd_.get(), KVM_IRQFD, &irqfd, "KVM_IRQFD", "gsi " + std::to_string(gsi));
}

void Vm::ioeventfd(const EventFd& eventFd, uint64_t address, uint32_t length, uint32_t flags,
                   std::optional<uint64_t> datamatch) const {
  kvm_ioeventfd ioeventfd{};
  ioeventfd.fd = eventFd.fd();
  ioeventfd.addr = address;
  ioeventfd.len = length;
  ioeventfd.flags = flags & ~static_cast<uint32_t>(KVM_IOEVENTFD_FLAG_DATAMATCH);
  if (datamatch.has_value()) {
    ioeventfd.flags |= KVM_IOEVENTFD_FLAG_DATAMATCH;
    ioeventfd.datamatch = *datamatch;
  }
  ioctlChecked(fd_.get(), KVM_IOEVENTFD, &ioeventfd, "KVM_IOEVENTFD", "address " + hex(address));
}

void Vm::close() {
  std::map<uint32_t, Slot> released;
  const std::lock_guard lock(slotsMutex_);
  closed_ = true;
  statsFd_.reset();
  fd_.reset();
  released.swap(slots_);  // after the descriptor, so that no guest can touch what is unmapped
}

}  // namespace vivarium
