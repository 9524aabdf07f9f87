import jax; jax.config.update("jax_enable_x64",True)
import jax.numpy as jnp, numpy as np
from jepa_dyn.theory import barlow_twins as bt, barlow_twins_alignment as al, barlow_twins_off_diagonal as od, barlow_twins_variants as va
from scipy.integrate import solve_ivp
g=jnp.array([.3,.3,-.5]);s0=jnp.array([.1,3.,1.3]);t=jnp.array([.7,.7,.7])
for f in (lambda t,s0,g: va.quartic_singular_value(t,s0,g),lambda t,s0,g: va.preconditioned_singular_value(t,s0,g,.7,.3),bt.singular_value):
  for i in range(3):
    d=jax.grad(lambda *a: f(*a).sum(),i)(t,s0,g)
    h=1e-6; args=[t,s0,g]; up=list(args);dn=list(args);up[i]=up[i]+h;dn[i]=dn[i]-h
    print(d, np.abs(d-(f(*up)-f(*dn))/2/h).max())
rng=np.random.default_rng(0)
d,m=3,5
gam=2.0**-np.arange(1,6); V=np.linalg.qr(rng.normal(size=(m,m)))[0]; G=V@np.diag(gam)@V.T; G=(G+G.T)/2
W=rng.normal(size=(d,m))
import time
for a in (1e-5,1e-9,1e-13):
    st=al.small_start(a*W,G); mot=st.aligned
    T=np.concatenate([np.linspace(0,float(mot.critical_times()[-1])*1.5,60),[float(mot.critical_times()[-1])*2.2]])
    L=gam
    t0=time.time()
    sol=solve_ivp(lambda t,x: ((lambda A: 4*((np.eye(d)-A*L@A.T)@A*L))(x.reshape(d,m))).ravel(),(0,T[-1]),np.asarray(st.amplitudes).ravel(),"DOP853",T,rtol=1e-11,atol=1e-13*a)
    A=sol.y.T.reshape(-1,d,m)
    ours=np.asarray(od.small_start_amplitudes(T,st))
    scale=np.abs(A).max(0)
    print(a,time.time()-t0,'max err/scale\n',np.round(np.abs(A-ours).max(0)/scale,4))
    print(' err aligned', max(np.linalg.norm(A[i]-np.pad(np.diag(np.asarray(mot.singular_values(T[i]))),((0,0),(0,2)))) for i in range(len(T))), 'err full', max(np.linalg.norm(A[i]-ours[i]) for i in range(len(T))))
