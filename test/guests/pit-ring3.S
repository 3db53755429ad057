# Long mode: works in ring 3, counting its turns at 0x608, and counts the ticks of channel 0 in mode 2 from COUNT through
# the PIC: at 0x600 those taken, at 0x604 those whose end of interrupt it has written (32 bits each).
        .code64
        .globl  _start
_start: cli
        # Interrupt gate 0x20 of a table at 0x5000, to tick in the ring-0 code segment.
        leaq    tick(%rip), %rax
        movw    %ax, 0x5200
        movl    $0x8e000008, 0x5202
        shrq    $16, %rax
        movw    %ax, 0x5206
        movl    $0, 0x5208
        lidt    table(%rip)
        movb    $0x11, %al
        outb    %al, $0x20
        movb    $0x20, %al
        outb    %al, $0x21
        movb    $4, %al
        outb    %al, $0x21
        movb    $1, %al
        outb    %al, $0x21
        movb    $0xfe, %al
        outb    %al, $0x21
        movb    $0x34, %al
        outb    %al, $0x43
        movb    $(COUNT & 0xff), %al
        outb    %al, $0x40
        movb    $(COUNT >> 8), %al
        outb    %al, $0x40
        pushq   $0x1b
        pushq   $0x7000
        pushq   $0x3202
        pushq   $0x23
        leaq    user(%rip), %rax
        pushq   %rax
        iretq
user:   movl    $200, %ecx
1:      loop    1b
        incl    0x608
        jmp     user
tick:   incl    0x600
        pushq   %rax
        movb    $0x20, %al
        outb    %al, $0x20
        popq    %rax
        incl    0x604
        iretq
table:  .word   0x20f
        .quad   0x5000
