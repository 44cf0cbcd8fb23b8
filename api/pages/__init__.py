"""What all pages share: the frame, the components, their templates, styles and behaviour. A page is a function that
makes components of answers, and a short template that places them (`rendering.render`)."""
