# Protected mode: an exception with no interrupt table, which becomes a triple fault.
        .code32
        .globl  _start
_start: movl    $0x12345678, %eax
        ud2
