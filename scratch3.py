import jax; jax.config.update("jax_enable_x64",True)
import jax.numpy as jnp, numpy as np, sys
from jepa_dyn.theory import barlow_twins as bt, barlow_twins_alignment as al, barlow_twins_off_diagonal as od
from scipy.integrate import solve_ivp
rng=np.random.default_rng(1)
for d,gam in ((2,[1.,.7,.5,.1]),(3,[1.,.6,.45,.1]),(3,[1.,.3,.2,-.4]),(4,[1.,.4]),(3,[1.,.4,-.3,-.5])):
  gam=np.array(gam); m=len(gam)
  W=rng.normal(size=(d,m)); print('p',al.alignment_exponent(gam,d)); last=None
  for a in (1e-3,1e-5,1e-7,1e-9,1e-11):
    st=al.small_start(a*W,np.diag(gam)); mot=st.aligned
    ct=np.asarray(mot.critical_times()); ct=ct[np.isfinite(ct)]
    T=np.concatenate([np.linspace(0,ct[-1]*1.5,60),[ct[-1]*2.2]])
    sol=solve_ivp(lambda t,x: ((lambda A: 4*((np.eye(d)-A*gam@A.T)@A*gam))(x.reshape(d,m))).ravel(),(0,T[-1]),(a*W).ravel(),"DOP853",T,rtol=1e-11,atol=1e-13*a)
    A=sol.y.T.reshape(-1,d,m)
    V=np.asarray(st.features)
    E1=np.linalg.norm(A-np.asarray(mot.encoder(T)),axis=(1,2)).max(); E2=np.linalg.norm(A-np.asarray(od.small_start_encoder(T,st)),axis=(1,2)).max()
    print(d,m,a,E1,E2, None if last is None else (np.log(E1/last[0])/np.log(1e-2),np.log(E2/last[1])/np.log(1e-2)),np.abs(np.asarray(mot.loss(T))-np.array([np.sum((B*gam@B.T-np.eye(d))**2) for B in A])).max()); last=(E1,E2)
