# Long mode, two CPUs, both in ring 3: each counts, at full speed, and notes beside its number what it has read of the
# other's. In the memory of any one instant nobody has read more than the other has written.
#   COUNTERS           64 bits: the last number of CPU 0, and a page further that of CPU 1; written after the note of it
#   NOTES, NOTES + PAGES * 4096   for each CPU PAGES pages, over and over; in each 64 bits of its number, behind those of the other's
        .set    SAVED, 0x6000
        .code64
        .globl  _start
_start: movq    $SAVED, %rdi
        sgdt    (%rdi)
        movq    %cr4, %rax
        movl    %eax, 0x10(%rdi)
        movq    %cr3, %rax
        movl    %eax, 0x14(%rdi)
        movq    %cr0, %rax
        movl    %eax, 0x18(%rdi)
        movq    $0xfee00000, %rbx
        movl    $0x000001ff, 0x0f0(%rbx)
        movl    $0x01000000, 0x310(%rbx)
        movl    $0x00004500, 0x300(%rbx)
        movl    $0x01000000, 0x310(%rbx)
        movl    $0x00004611, 0x300(%rbx)
        xorl    %esi, %esi
        jmp     go

        # r8, r9: the counters, its own and the other's; r10, r11: its notes, their end. CPU in esi.
go:     movq    $COUNTERS, %r8
        leaq    4096(%r8), %r9
        movq    $NOTES, %r10
        testl   %esi, %esi
        jz      1f
        xchgq   %r8, %r9
        addq    $4096 * PAGES, %r10
1:      leaq    4096 * PAGES(%r10), %r11
        pushq   $0x1b
        pushq   $0x7000
        pushq   $0x3002
        pushq   $0x23
        leaq    user(%rip), %rax
        pushq   %rax
        iretq
user:   xorl    %eax, %eax
2:      movq    %r10, %rdi
3:      incq    %rax
        movq    (%r9), %rdx
        movq    %rdx, 8(%rdi)
        movq    %rax, (%rdi)
        movq    %rax, (%r8)
        addq    $4096, %rdi
        cmpq    %r11, %rdi
        jne     3b
        jmp     2b

        # CPU 1, from real mode to where CPU 0 is.
        .org    0x1000
        .code16
        cli
        xorw    %ax, %ax
        movw    %ax, %ds
        lgdtl   SAVED
        movl    SAVED + 0x10, %eax
        movl    %eax, %cr4
        movl    SAVED + 0x14, %eax
        movl    %eax, %cr3
        movl    $0xc0000080, %ecx
        rdmsr
        orl     $0x100, %eax
        wrmsr
        movl    SAVED + 0x18, %eax
        movl    %eax, %cr0
        ljmpl   $8, $long
        .code64
long:   movl    $0x10, %eax
        movw    %ax, %ss
        movw    %ax, %ds
        movw    %ax, %es
        movq    $0x6800, %rsp
        movl    $1, %esi
        jmp     go
