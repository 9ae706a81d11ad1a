a link to {config}/vhost.d
