# Long mode: goes to ring 3 and writes 1, 2, 3, … into the first word of PAGES pages from BASE, over and over, at full
# speed. At any one instant the words are the last PAGES values, each at its place: a copy that mixes two instants shows.
        .code64
        .globl  _start
_start: pushq   $0x1b
        pushq   $0x7000
        pushq   $0x3002
        pushq   $0x23
        leaq    user(%rip), %rax
        pushq   %rax
        iretq
user:   movq    $1, %rax
1:      movq    $BASE, %rdi
        movq    $PAGES, %rcx
2:      movq    %rax, (%rdi)
        incq    %rax
        addq    $4096, %rdi
        decq    %rcx
        jnz     2b
        jmp     1b
