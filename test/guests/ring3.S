# Long mode: goes to ring 3 by iretq and counts there in a 64-bit word at COUNTER, writing to port 0xf4 at the end.
# LOOPS: how often it counts.
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
        movq    $LOOPS, %rcx
1:      incq    (%rdi)
        decq    %rcx
        jnz     1b
        movb    $7, %al
        outb    %al, $0xf4
2:      jmp     2b
