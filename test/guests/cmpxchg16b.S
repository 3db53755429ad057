# Long mode, ring 0: an instruction that a software-backed KVM's emulator does not know. Exits with 1 where it works.
        .code64
        .globl  _start
_start: movq    $0x20000, %rdi
        lock cmpxchg16b (%rdi)
        movb    $1, %al
        outb    %al, $0xf4
