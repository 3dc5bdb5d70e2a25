// Swagger UI over this service's own document; its files come from an installed package.
SwaggerUIBundle({ url: "/openapi.json", dom_id: "#swagger", deepLinking: true, docExpansion: "list", defaultModelsExpandDepth: 0 });
