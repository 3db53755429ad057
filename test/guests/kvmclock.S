# Long mode: asks KVM to keep the time page of kvmclock at 0x20000 (MSR_KVM_SYSTEM_TIME_NEW), and counts at 0x21000.
        .code64
        .globl  _start
_start: movl    $0x4b564d01, %ecx
        movl    $0x20001, %eax
        xorl    %edx, %edx
        wrmsr
1:      incl    0x21000
        jmp     1b
