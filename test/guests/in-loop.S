# Long mode, ring 0, every CPU that runs: reads the 32-bit port PORT for ever, so that it is in an exit most of the time.
# With CPUS of 2 the first one starts the second (see smp.S), which reads the port in real mode.
        .code64
        .globl  _start
_start:
        .if CPUS > 1
        movq    $0xfee00000, %rbx
        movl    $0x000001ff, 0x0f0(%rbx)
        movl    $0x01000000, 0x310(%rbx)
        movl    $0x00004500, 0x300(%rbx)
        movl    $0x01000000, 0x310(%rbx)
        movl    $0x00004611, 0x300(%rbx)
        .endif
        movw    $PORT, %dx
1:      inl     %dx, %eax
        jmp     1b
        .org    0x1000
        .code16
        movw    $PORT, %dx
2:      inl     %dx, %eax
        jmp     2b
