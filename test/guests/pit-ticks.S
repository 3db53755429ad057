# Real mode: halts, and counts the ticks of channel 0 in mode 2 from COUNT. At 0x600 those taken, at 0x604 those whose
# end of interrupt it has written (32 bits each). After STOP of them it writes to port 0xc1, and goes on with the next.
# PIN 255: through the PIC. Else through that pin of the IO-APIC: FS and GS have the bases of IO-APIC and local APIC.
        .include "pit-common.S"
        .code16
        .globl  _start
_start: cli
        movw    $tick, 0x80
        movw    $0, 0x82
        open_irq0
.if PIN != 255
        movb    $0xff, %al
        outb    %al, $0x21
        movl    $0x1ff, %gs:0xf0
        movl    $(0x11 + 2 * PIN), %fs:0
        movl    $0, %fs:0x10
        movl    $(0x10 + 2 * PIN), %fs:0
        movl    $0x20, %fs:0x10
.endif
        load_channel0 0x34
        sti
1:      hlt
        jmp     1b
tick:   incl    0x600
.if PIN == 255
        end_of_interrupt
.else
        movl    $0, %gs:0xb0
.endif
        incl    0x604
        cmpl    $STOP, 0x604
        jne     2f
        outb    %al, $0xc1
2:      iret
