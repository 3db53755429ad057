# Long mode: a driver of the virtio block device in slot 1 or above, by what the specifications of PCI and virtio say
# alone. It finds the function through ports 0xcf8 and 0xcfc, walks its capabilities, sets up queue 0, reads the sector
# SECTOR into DATA, sleeps until the interrupt, and exits with 0x21 by port 0xf4, or with 0xe0 and up when something is
# not as it should be.
#   MSIX: 1 takes interrupts by MSI-X, 0 by INTx and the IO-APIC.
#   GATED: 1 reads port GATE after each notification, and goes on when that is answered.
#   MASTER: 0 leaves bus mastering off until then.
#   RESETS: how often it resets the device after that and begins anew.
# What it leaves: interrupts taken at TAKEN, the OR of all ISR reads behind it, the used index after each reset (their OR)
# behind that, 32 bits each.
        .set    PAGE, 0x40000
        .set    QUEUE_DESC, PAGE
        .set    QUEUE_DRIVER, PAGE + 0x1000
        .set    QUEUE_DEVICE, PAGE + 0x2000
        .set    HEADER, PAGE + 0x3000
        .set    STATUS, PAGE + 0x3010
        .set    IDT, PAGE + 0x4000
        .set    VECTOR, 0x41
        .set    LAPIC, 0xfee00000
        .set    IOAPIC, 0xfec00000
# Registers that stay: r15 address of the function, r14 common configuration, r13 notify, r12 ISR, r11 MSI-X control,
# r10 MSI-X table, r9 resets left.
        .include "virtio-pci.S"
        .code64
        .globl  _start
_start: movq    $RESETS, %r9
        find_virtio 0x10421af4

        # The list of capabilities: ebx is at one of them.
        movl    $0x34, %ecx
        call    config
        movzbl  %al, %ebx
next:   testl   %ebx, %ebx
        jz      listed
        movl    %ebx, %ecx
        call    config
        movl    %eax, %edi
        cmpb    $0x11, %al
        je      msix
        cmpb    $0x09, %al
        jne     skip
        call    place
        shrl    $24, %edi
        cmpb    $1, %dil
        cmoveq  %rax, %r14
        cmpb    $2, %dil
        cmoveq  %rax, %r13
        cmpb    $3, %dil
        cmoveq  %rax, %r12
        jmp     skip
msix:   movl    %ebx, %r11d
        leal    4(%ebx), %ecx
        call    config
        movl    %eax, %esi
        andl    $7, %eax
        call    bar
        andl    $~7, %esi
        leaq    (%rax,%rsi), %r10
skip:   movl    %ebx, %ecx
        call    config
        movzbl  %ah, %ebx
        jmp     next

listed: testq   %r14, %r14
        jz      lost
        testq   %r13, %r13
        jz      lost
        testq   %r12, %r12
        jnz     wire
lost:   movb    $0xe1, %al
        jmp     bad

        # The interrupt: its gate, the local APIC, and MSI-X or the IO-APIC's input that the function names.
wire:   leaq    taken(%rip), %rax
        movq    $IDT + 16 * VECTOR, %rdi
        movw    %ax, (%rdi)
        movw    $8, 2(%rdi)
        movw    $0x8e00, 4(%rdi)
        shrq    $16, %rax
        movw    %ax, 6(%rdi)
        movq    $0, 8(%rdi)
        lidt    idtr(%rip)
        movq    $LAPIC, %rdi
        movl    $0x1ff, 0xf0(%rdi)
        .if     MSIX
        movl    $LAPIC, (%r10)
        movl    $0, 4(%r10)
        movl    $VECTOR, 8(%r10)
        movl    $0, 12(%r10)
        movl    %r11d, %ecx
        call    config
        orl     $0x80000000, %eax
        outl    %eax, %dx
        .else
        movl    $0x3c, %ecx
        call    config
        movzbl  %al, %ecx
        movq    $IOAPIC, %rdi
        leal    0x10(%rcx,%rcx), %eax
        movl    %eax, (%rdi)
        movl    $0x8000 + VECTOR, 0x10(%rdi)
        incl    %eax
        movl    %eax, (%rdi)
        movl    $0, 0x10(%rdi)
        .endif
        movl    $2 + 4 * MASTER, %esi
        call    command

        # Virtio 1.2, 3.1.1. The rings are empty.
begin:  xorl    %eax, %eax
        movq    $PAGE, %rdi
        movl    $0x3000 / 8, %ecx
        cld
        rep     stosq
        begin_virtio
        movw    $0, 0x16(%r14)
        movw    $8, 0x18(%r14)
        movw    $(MSIX - 1) & 0xffff, 0x1a(%r14)
        movl    $QUEUE_DESC, 0x20(%r14)
        movl    $0, 0x24(%r14)
        movl    $QUEUE_DRIVER, 0x28(%r14)
        movl    $0, 0x2c(%r14)
        movl    $QUEUE_DEVICE, 0x30(%r14)
        movl    $0, 0x34(%r14)
        movw    $1, 0x1c(%r14)
        movb    $0x0f, 0x14(%r14)

        # One request of three descriptors: header, data, status.
        movq    $QUEUE_DESC, %rdi
        movq    $HEADER, (%rdi)
        movl    $16, 8(%rdi)
        movl    $0x00010001, 12(%rdi)
        movq    $DATA, 16(%rdi)
        movl    $512, 24(%rdi)
        movl    $0x00020003, 28(%rdi)
        movq    $STATUS, 32(%rdi)
        movl    $1, 40(%rdi)
        movl    $0x00000002, 44(%rdi)
        movq    $HEADER, %rdi
        movq    $0, (%rdi)
        movq    $SECTOR, 8(%rdi)
        movb    $0xff, 16(%rdi)
        movq    $QUEUE_DRIVER, %rdi
        movw    $1, 2(%rdi)
        movw    $0, (%r13)

        .if     GATED
        movw    $GATE, %dx
        inb     %dx, %al
        .endif
        testq   %r9, %r9
        jz      3f
        decq    %r9
        movb    $0, 0x14(%r14)
4:      cmpb    $0, 0x14(%r14)
        jne     4b
        movq    $QUEUE_DEVICE, %rdi
        movzwl  2(%rdi), %eax
        movq    $TAKEN, %rdi
        orl     %eax, 8(%rdi)
        jmp     begin
3:
        .if     MASTER == 0
        movl    $6, %esi
        call    command
        .endif
        # Interrupts are off but for the time that it sleeps: none comes between the look and the sleep.
        movq    $TAKEN, %rdi
5:      cmpl    $0, (%rdi)
        jne     6f
        sti
        hlt
        cli
        jmp     5b
6:      movq    $QUEUE_DEVICE, %rdi
        cmpw    $1, 2(%rdi)
        movb    $0xe3, %al
        jne     bad
        movq    $STATUS, %rdi
        cmpb    $0, (%rdi)
        movb    $0xe4, %al
        jne     bad
        movb    $0x21, %al
bad:    outb    %al, $0xf4
7:      jmp     7b

        pci_routines

taken:  pushq   %rax
        pushq   %rdi
        movq    $TAKEN, %rdi
        incl    (%rdi)
        movzbl  (%r12), %eax
        orl     %eax, 4(%rdi)
        movq    $LAPIC, %rdi
        movl    $0, 0xb0(%rdi)
        popq    %rdi
        popq    %rax
        iretq

idtr:   .word   16 * 256 - 1
        .quad   IDT
