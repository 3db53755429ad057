# Long mode, ring 3: counts in the 64-bit word at COUNTER for ever.
        .code64
        .globl  _start
_start: pushq   $0x1b
        pushq   $0x7000
        pushq   $0x3002
        pushq   $0x23
        leaq    user(%rip), %rax
        pushq   %rax
        iretq
user:   movq    $COUNTER, %rdi
1:      incq    (%rdi)
        jmp     1b
