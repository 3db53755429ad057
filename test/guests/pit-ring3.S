# Long mode: works in ring 3, counting its turns at 0x608, and counts the ticks of channel 0 in mode 2 from COUNT as
# pit-ticks.S does. Its handler works for CYCLES of the TSC: how many turns of a loop these are is measured before.
        .include "pit-common.S"
        .set    MEASURED, 1000
        .set    TURNS, 0x610
        .code64
        .globl  _start
_start: cli
        set_tick_gate
        # The least of many measurements, since another process may come between.
        movl    $-1, %esi
        movl    $64, %edi
1:      rdtsc
        movl    %eax, %ebx
        movl    $MEASURED, %ecx
2:      loop    2b
        rdtsc
        subl    %ebx, %eax
        cmpl    %esi, %eax
        cmovbl  %eax, %esi
        decl    %edi
        jnz     1b
        movl    $CYCLES, %eax
        movl    $MEASURED, %ecx
        mulq    %rcx
        divq    %rsi
        incl    %eax
        movl    %eax, TURNS
        open_irq0
        load_channel0 0x34
        enter_ring3
user:   movl    $200, %ecx
1:      loop    1b
        incl    0x608
        jmp     user
tick:   incl    0x600
        pushq   %rax
        pushq   %rcx
        movl    TURNS, %ecx
1:      loop    1b
        end_of_interrupt
        popq    %rcx
        popq    %rax
        incl    0x604
        iretq
