/** The error classes: the name, the code and the cause that programs match on. */
import { describe, expect, it } from 'vitest';
import { AbortError, KvmError, SystemError, VmmError } from './errors.js';

describe('VmmError', () => {
  it('carries code, cure and cause', () => {
    const cause = new Error('below');
    const error = new VmmError('ERR_SETUP', 'no kernel', { cause, cure: 'npm run setup' });
    expect(error).toBeInstanceOf(Error);
    expect(error.name).toBe('VmmError');
    expect(error.code).toBe('ERR_SETUP');
    expect(error.cure).toBe('npm run setup');
    expect(error.cause).toBe(cause);
  });

  it('has no cause of its own when none is given', () => {
    expect('cause' in new VmmError('ERR_STATE', 'closed')).toBe(false);
  });
});

describe('KvmError and SystemError', () => {
  it('name what failed, the errno and the thing', () => {
    const kvm = new KvmError('KVM_SET_MSRS', 'EINVAL', 22, 'index 0x10a');
    expect(kvm).toBeInstanceOf(VmmError);
    expect(kvm).toMatchObject({
      name: 'KvmError',
      code: 'ERR_KVM',
      ioctl: 'KVM_SET_MSRS',
      errno: 'EINVAL',
      errnoNumber: 22,
    });
    expect(kvm.message).toBe('KVM_SET_MSRS: EINVAL (index 0x10a)');
    const system = new SystemError('eventfd', 'EMFILE', 24);
    expect(system).toMatchObject({ name: 'SystemError', code: 'ERR_SYSTEM', syscall: 'eventfd', errno: 'EMFILE' });
    expect(system.message).toBe('eventfd: EMFILE');
  });
});

describe('AbortError', () => {
  it("keeps the signal's reason as its cause", () => {
    const controller = new AbortController();
    controller.abort('enough');
    expect(new AbortError(controller.signal)).toMatchObject({
      code: 'ERR_ABORTED',
      name: 'AbortError',
      cause: 'enough',
    });
  });
});
