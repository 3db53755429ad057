// What the addon is measured against: the same KVM calls in a straight line, on the calling thread, with nothing
// around them. plainExits() is a loop around KVM_RUN; bareCreate() makes a machine, runs it to its first port write and
// takes it away. It shares no code with native/ on purpose, and no one but bench/ may use it.
#include <fcntl.h>
#include <linux/kvm.h>
#include <napi.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <stdexcept>
#include <string>

namespace {

constexpr uint64_t kLoadAddress = 0x1000;
constexpr uint64_t kHoleStart = 0xc0000000;  // RAM below the 32-bit hole ends here; the rest follows at 4 GiB
constexpr uint64_t kHoleEnd = 0x100000000;
constexpr size_t kHugePageBytes = size_t{2} << 20;

uint64_t nowNs() {
  timespec now;
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<uint64_t>(now.tv_sec) * 1'000'000'000u + static_cast<uint64_t>(now.tv_nsec);
}

int check(int result, const char* what) {
  if (result < 0) throw std::runtime_error(std::string(what) + ": " + std::strerror(errno));
  return result;
}

// One machine of one vCPU. The times at which its parts stood are those of bareCreate().
struct Machine {
  int kvm = -1;
  int vm = -1;
  int vcpu = -1;
  uint8_t* memory = nullptr;
  size_t memoryBytes = 0;
  kvm_run* run = nullptr;
  size_t runBytes = 0;
  uint64_t startedNs = 0;
  uint64_t vmNs = 0;
  uint64_t memoryNs = 0;
  uint64_t vcpuNs = 0;

  Machine(const uint8_t* image, size_t imageBytes, size_t bytes) : memoryBytes(bytes) {
    startedNs = nowNs();
    kvm = check(::open("/dev/kvm", O_RDWR | O_CLOEXEC), "open /dev/kvm");
    vm = check(::ioctl(kvm, KVM_CREATE_VM, 0), "KVM_CREATE_VM");
    check(::ioctl(vm, KVM_SET_TSS_ADDR, 0xfffbd000), "KVM_SET_TSS_ADDR");
    uint64_t identityMap = 0xfffbc000;
    check(::ioctl(vm, KVM_SET_IDENTITY_MAP_ADDR, &identityMap), "KVM_SET_IDENTITY_MAP_ADDR");
    check(::ioctl(vm, KVM_CREATE_IRQCHIP, 0), "KVM_CREATE_IRQCHIP");
    kvm_pit_config pit{};
    check(::ioctl(vm, KVM_CREATE_PIT2, &pit), "KVM_CREATE_PIT2");
    vmNs = nowNs();

    void* mapped =
        ::mmap(nullptr, memoryBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (mapped == MAP_FAILED) check(-1, "mmap");
    memory = static_cast<uint8_t*>(mapped);
    if (memoryBytes >= kHugePageBytes) ::madvise(memory, memoryBytes, MADV_HUGEPAGE);
    const uint64_t below = memoryBytes < kHoleStart ? memoryBytes : kHoleStart;
    setSlot(0, 0, 0, below);
    if (memoryBytes > below) setSlot(1, kHoleEnd, below, memoryBytes - below);
    std::memcpy(memory + kLoadAddress, image, imageBytes);
    memoryNs = nowNs();

    runBytes = static_cast<size_t>(check(::ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0), "KVM_GET_VCPU_MMAP_SIZE"));
    vcpu = check(::ioctl(vm, KVM_CREATE_VCPU, 0), "KVM_CREATE_VCPU");
    mapped = ::mmap(nullptr, runBytes, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu, 0);
    if (mapped == MAP_FAILED) check(-1, "mmap kvm_run");
    run = static_cast<kvm_run*>(mapped);
    kvm_sregs sregs;
    check(::ioctl(vcpu, KVM_GET_SREGS, &sregs), "KVM_GET_SREGS");
    for (kvm_segment* segment : {&sregs.cs, &sregs.ds, &sregs.es, &sregs.fs, &sregs.gs, &sregs.ss}) {
      segment->base = 0;
      segment->selector = 0;
    }
    check(::ioctl(vcpu, KVM_SET_SREGS, &sregs), "KVM_SET_SREGS");
    kvm_regs regs{};
    regs.rip = kLoadAddress;
    regs.rsp = 0x7000;
    regs.rflags = 2;
    check(::ioctl(vcpu, KVM_SET_REGS, &regs), "KVM_SET_REGS");
    vcpuNs = nowNs();
  }

  void setSlot(uint32_t slot, uint64_t gpa, uint64_t offset, uint64_t bytes) {
    kvm_userspace_memory_region region{};
    region.slot = slot;
    region.guest_phys_addr = gpa;
    region.memory_size = bytes;
    region.userspace_addr = reinterpret_cast<uint64_t>(memory) + offset;
    check(::ioctl(vm, KVM_SET_USER_MEMORY_REGION, &region), "KVM_SET_USER_MEMORY_REGION");
  }

  // To the next port access of the guest.
  void runToPort() {
    while (::ioctl(vcpu, KVM_RUN, 0) < 0) {
      if (errno != EINTR && errno != EAGAIN) check(-1, "KVM_RUN");
    }
    if (run->exit_reason != KVM_EXIT_IO) {
      throw std::runtime_error("the guest left with exit reason " + std::to_string(run->exit_reason));
    }
  }

  void close() {
    if (run != nullptr) ::munmap(run, runBytes);
    run = nullptr;
    for (int* fd : {&vcpu, &vm, &kvm}) {
      if (*fd >= 0) ::close(*fd);
      *fd = -1;
    }
    if (memory != nullptr) ::munmap(memory, memoryBytes);
    memory = nullptr;
  }

  ~Machine() { close(); }
};

struct Bytes {
  const uint8_t* data;
  size_t length;
};

Bytes imageArgument(const Napi::CallbackInfo& info, size_t memoryBytes) {
  if (!info[0].IsTypedArray() || info[0].As<Napi::TypedArray>().TypedArrayType() != napi_uint8_array) {
    throw Napi::TypeError::New(info.Env(), "image: a Uint8Array is wanted");
  }
  const auto array = info[0].As<Napi::Uint8Array>();
  if (memoryBytes < kLoadAddress || array.ByteLength() > memoryBytes - kLoadAddress) {
    throw Napi::RangeError::New(info.Env(), "image: larger than the memory");
  }
  return {array.Data(), array.ByteLength()};
}

// plainExits(image, exits): nanoseconds for that many port exits of a real-mode image at 0x1000, the first not counted:
// it is the start. A read is answered with 0.
Napi::Value plainExits(const Napi::CallbackInfo& info) {
  constexpr size_t kMemoryBytes = 1 << 20;
  const Bytes image = imageArgument(info, kMemoryBytes);
  const int64_t exits = info[1].ToNumber().Int64Value();
  try {
    Machine machine(image.data, image.length, kMemoryBytes);
    machine.runToPort();
    const uint64_t startedNs = nowNs();
    for (int64_t exit = 0; exit < exits; exit++) {
      machine.runToPort();
      if (machine.run->io.direction == KVM_EXIT_IO_IN) {
        *(reinterpret_cast<uint8_t*>(machine.run) + machine.run->io.data_offset) = 0;
      }
    }
    return Napi::BigInt::New(info.Env(), nowNs() - startedNs);
  } catch (const std::runtime_error& failure) {
    throw Napi::Error::New(info.Env(), failure.what());
  }
}

// bareCreate(image, memoryBytes): a machine from open() to its guest's first port access and on to the last close, in
// nanoseconds: {vmNs, memoryNs, vcpuNs, firstExitNs, closeNs, readyNs, totalNs}.
Napi::Value bareCreate(const Napi::CallbackInfo& info) {
  const double memoryBytes = info[1].ToNumber().DoubleValue();
  if (!(memoryBytes >= 65536 && memoryBytes <= 1099511627776.0)) {
    throw Napi::RangeError::New(info.Env(), "memoryBytes: not from 64 KiB to 1 TiB");
  }
  const Bytes image = imageArgument(info, static_cast<size_t>(memoryBytes));
  try {
    Machine machine(image.data, image.length, static_cast<size_t>(memoryBytes));
    machine.runToPort();
    const uint64_t readyNs = nowNs();
    machine.close();
    const uint64_t closedNs = nowNs();
    Napi::Object times = Napi::Object::New(info.Env());
    const auto set = [&](const char* name, uint64_t ns) { times.Set(name, static_cast<double>(ns)); };
    set("vmNs", machine.vmNs - machine.startedNs);
    set("memoryNs", machine.memoryNs - machine.vmNs);
    set("vcpuNs", machine.vcpuNs - machine.memoryNs);
    set("firstExitNs", readyNs - machine.vcpuNs);
    set("closeNs", closedNs - readyNs);
    set("readyNs", readyNs - machine.startedNs);
    set("totalNs", closedNs - machine.startedNs);
    return times;
  } catch (const std::runtime_error& failure) {
    throw Napi::Error::New(info.Env(), failure.what());
  }
}

Napi::Object init(Napi::Env env, Napi::Object exports) {
  exports.Set("plainExits", Napi::Function::New<plainExits>(env, "plainExits"));
  exports.Set("bareCreate", Napi::Function::New<bareCreate>(env, "bareCreate"));
  return exports;
}

}  // namespace

NODE_API_MODULE(vivarium_bench, init)
