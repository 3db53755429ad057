# What real-mode and long-mode guests that keep time by channel 0 have in common.

# The PIC at vectors 0x20 and up, with only IRQ 0 open.
        .macro  open_irq0
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
        .endm

# Loads channel 0 with COUNT. CONTROL 0x34: mode 2, periodic; 0x30: mode 0, one-shot.
        .macro  load_channel0 control
        movb    $\control, %al
        outb    %al, $0x43
        movb    $(COUNT & 0xff), %al
        outb    %al, $0x40
        movb    $(COUNT >> 8), %al
        outb    %al, $0x40
        .endm

        .macro  end_of_interrupt
        movb    $0x20, %al
        outb    %al, $0x20
        .endm

# Long mode: the interrupt gate 0x20, of a table at 0x5000, leads to `tick` in ring 0.
        .macro  set_tick_gate
        leaq    tick(%rip), %rax
        movw    %ax, 0x5200
        movl    $0x8e000008, 0x5202
        shrq    $16, %rax
        movw    %ax, 0x5206
        movl    $0, 0x5208
        pushq   $0
        pushq   $0x50000fff
        lidt    (%rsp)
        .endm

# Goes on in ring 3 at `user`, with interrupts on and IOPL 3.
        .macro  enter_ring3
        pushq   $0x1b
        pushq   $0x7000
        pushq   $0x3202
        pushq   $0x23
        leaq    user(%rip), %rax
        pushq   %rax
        iretq
        .endm
