//! Requests, kubeconfig, transports, informers, workqueue and the controller runner.
