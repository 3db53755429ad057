// The fixed-size ioctls that JavaScript may issue by name: request number, size of the structure, and direction.
// What is not in a table cannot be issued, and a structure of another size never reaches the kernel.
#pragma once

#include <cstddef>
#include <string_view>

namespace vivarium {

enum class IoctlScope { kVm, kVcpu };

struct StructIoctl {
  const char* name;
  IoctlScope scope;
  unsigned long request;
  size_t sizeBytes;
  // The kernel reads the structure, so that an input is wanted. A pure get works without.
  bool reads;
  // The get takes a selector in the structure (the chip of KVM_GET_IRQCHIP): an input is optional.
  bool selects;
};

struct ValueIoctl {
  const char* name;
  IoctlScope scope;
  unsigned long request;
};

// nullptr when the name is not in the table.
const StructIoctl* findStructIoctl(IoctlScope scope, std::string_view name);
const ValueIoctl* findValueIoctl(IoctlScope scope, std::string_view name);

}  // namespace vivarium
