# Long mode: starts CPU 1 by INIT and SIPI through the local APIC, waits until it has written 0x77 at 0x20000, and exits
# with 0x77. CPU 1 begins in real mode at 0x11000 (vector 0x11).
        .code64
        .globl  _start
_start: movq    $0xfee00000, %rbx
        # Software-enabled, as firmware leaves it: kvm-pvm sends no IPI of a local APIC that is not.
        movl    $0x000001ff, 0x0f0(%rbx)
        movl    $0x01000000, 0x310(%rbx)
        movl    $0x00004500, 0x300(%rbx)
        movl    $0x01000000, 0x310(%rbx)
        movl    $0x00004611, 0x300(%rbx)
        movq    $0x20000, %rdi
1:      pause
        movb    (%rdi), %al
        cmpb    $0x77, %al
        jne     1b
        outb    %al, $0xf4
2:      jmp     2b
        .org    0x1000
        .code16
        movw    $0x2000, %ax
        movw    %ax, %ds
        movb    $0x77, 0
3:      hlt
        jmp     3b
