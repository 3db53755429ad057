# Long mode: counts the ticks of channel 0 in mode 2 from COUNT as pit-ticks.S does, and reads the time all the while, with
# the arithmetic of Linux (i8253_read, drivers/clocksource/i8253.c): ticks * COUNT + COUNT - 1 - the latched count. Interrupts
# are on; a reading that a tick comes into is begun anew. 32 bits each: at 0x608 readings, at 0x60c those below the one
# before, at 0x610 counts above COUNT, for which it loads anew.
        .include "pit-common.S"
        .code64
        .globl  _start
_start: cli
        set_tick_gate
        open_irq0
        load_channel0 0x34
        sti
# In ebp the ticks and in esi the count of the reading before, in r8d its time.
read:   movl    0x600, %ebx
        movb    $0, %al
        outb    %al, $0x43
        inb     $0x40, %al
        movzbl  %al, %ecx
        inb     $0x40, %al
        movb    %al, %ch
        cmpl    0x600, %ebx
        jne     read
        cmpl    $COUNT, %ecx
        jbe     1f
        incl    0x610
        load_channel0 0x34
        movl    $(COUNT - 1), %ecx
1:      cmpl    %ebp, %ebx
        jne     2f
        cmpl    %esi, %ecx
        jbe     2f
        movl    %esi, %ecx
2:      movl    %ebx, %ebp
        movl    %ecx, %esi
        imull   $COUNT, %ebx, %eax
        addl    $(COUNT - 1), %eax
        subl    %ecx, %eax
        cmpl    %r8d, %eax
        jae     3f
        incl    0x60c
3:      movl    %eax, %r8d
        incl    0x608
        jmp     read
tick:   pushq   %rax
        incl    0x600
        end_of_interrupt
        incl    0x604
        popq    %rax
        iretq
