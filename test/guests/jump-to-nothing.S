# Protected mode: runs on where there is no memory, which no KVM can emulate.
        .code32
        .globl  _start
_start: movl    $0xd0000000, %eax
        movl    $0xcafe, %ebx
        jmp     *%eax
