# Real mode: halts with interrupts off, for good. With IDLE=1 it halts with interrupts on instead, and would wake.
        .code16
        .globl  _start
_start: cli
.if IDLE
        sti
.endif
1:      hlt
        jmp     1b
