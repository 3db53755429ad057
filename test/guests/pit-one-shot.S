# Real mode: halts, and counts the ticks of channel 0 as pit-ticks.S does. While the byte at 0x610 is 0 channel 0 is
# periodic (mode 2); else each tick loads the next one (mode 0). It looks there at every tick.
        .include "pit-common.S"
        .code16
        .globl  _start
_start: cli
        movw    $tick, 0x80
        movw    $0, 0x82
        open_irq0
        load_channel0 0x34
        sti
1:      hlt
        jmp     1b
tick:   incl    0x600
        movb    0x610, %bl
        testb   %bl, %bl
        jz      2f
        load_channel0 0x30
        jmp     3f
2:      cmpb    $0, 0x611
        je      4f
        load_channel0 0x34
3:      movb    %bl, 0x611
4:      end_of_interrupt
        incl    0x604
        iret
