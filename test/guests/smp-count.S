# Long mode: starts CPU 1 by INIT and SIPI, which counts in the 32-bit word at 0x20010 in real mode, from 0x11000 on. CPU 0 counts in
# the 64-bit word at 0x20020 in ring 3, with a number of its own in XMM1 and in R12.
        .code64
        .globl  _start
_start: movq    $0xfee00000, %rbx
        movl    $0x000001ff, 0x0f0(%rbx)
        movl    $0x01000000, 0x310(%rbx)
        movl    $0x00004500, 0x300(%rbx)
        movl    $0x01000000, 0x310(%rbx)
        movl    $0x00004611, 0x300(%rbx)
        pushq   $0x1b
        pushq   $0x7000
        pushq   $0x3002
        pushq   $0x23
        leaq    user(%rip), %rax
        pushq   %rax
        iretq
user:   movq    $0x1122334455667788, %r12
        movq    %r12, %xmm1
        movq    $0x20020, %rdi
1:      incq    (%rdi)
        jmp     1b
        .org    0x1000
        .code16
        movw    $0x2000, %ax
        movw    %ax, %ds
2:      incl    0x10
        jmp     2b
