# Real mode: halts, and counts the ticks of channel 0 as pit-ticks.S does, beginning with COUNT. After 5 to 12 ticks each
# it programs another count, from 9000 to 13095 (91 to 132 Hz), until the byte at 0x630 is not 0. Its own time, in cycles of
# the PIT, stands at 0x608 (64 bits), how often it has programmed at 0x610, the count at 0x614 (32 bits each).
        .include "pit-common.S"
        .set    LEFT, 0x620
        .set    RANDOM, 0x622
        .code16
        .globl  _start
_start: cli
        movw    $tick, 0x80
        movw    $0, 0x82
        movw    $20, LEFT
        movl    $COUNT, 0x614
        open_irq0
        load_channel0 0x34
        sti
1:      hlt
        jmp     1b
tick:   incl    0x600
        movl    0x614, %eax
        addl    %eax, 0x608
        adcl    $0, 0x60c
        cmpb    $0, 0x630
        jne     2f
        decw    LEFT
        jnz     2f
        imulw   $25173, RANDOM, %bx
        addw    $13849, %bx
        movw    %bx, RANDOM
        movzbw  %bh, %cx
        andw    $7, %cx
        addw    $5, %cx
        movw    %cx, LEFT
        shrw    $4, %bx
        addw    $9000, %bx
        movw    %bx, 0x614
        movb    $0x34, %al
        outb    %al, $0x43
        movb    %bl, %al
        outb    %al, $0x40
        movb    %bh, %al
        outb    %al, $0x40
        incl    0x610
2:      end_of_interrupt
        incl    0x604
        iret
