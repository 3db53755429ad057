# Long mode: halts in ring 0, and counts the ticks of channel 0 in mode 2 from COUNT. At 0x600 those taken, at 0x604 those whose end of
# interrupt it has written (32 bits each). PIN 255: through the PIC. Else through that pin of the IO-APIC.
        .include "pit-common.S"
        .code64
        .globl  _start
_start: cli
        set_tick_gate
        open_irq0
.if PIN != 255
        movb    $0xff, %al
        outb    %al, $0x21
        movq    $0xfec00000, %rbx
        movq    $0xfee00000, %rdi
        movl    $0x1ff, 0xf0(%rdi)
        movl    $(0x11 + 2 * PIN), (%rbx)
        movl    $0, 0x10(%rbx)
        movl    $(0x10 + 2 * PIN), (%rbx)
        movl    $0x20, 0x10(%rbx)
.endif
        load_channel0 0x34
        sti
1:      hlt
        jmp     1b
tick:   incl    0x600
.if PIN == 255
        end_of_interrupt
.else
        movl    $0, 0xb0(%rdi)
.endif
        incl    0x604
        iretq
